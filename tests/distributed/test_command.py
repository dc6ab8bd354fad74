"""`python -m quantizers fit` on several ranks, and on processes that are killed."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import quantizers
from quantizers.cli.app import app
from quantizers.cli.progress import Log
from quantizers.fitting import Progress
from tests.cli.conftest import clustered
from tests.distributed.ranks import RankError, Ranks, World

SMALL = ("--levels", "2", "--codebook-size", "32", "--batch-size", "128", "--epochs", "3")


def fit(folder: Path, out: str, *words: str) -> tuple[int, str]:
    """The exit code and the output of `fit`."""
    result = CliRunner().invoke(
        app, ["fit", str(folder / "items.npy"), *SMALL, "--out", str(folder / out), *words]
    )
    return result.exit_code, result.output


def fit_on_ranks(world: World, folder: Path, port: int, *words: str) -> tuple[int, str]:
    """`fit` in the environment that torchrun sets."""
    with _torchrun(world, port):
        return fit(folder, *words)


def killed(world: World, folder: Path, port: int, out: str) -> None:
    """The first rank ends itself while it fits the second codebook."""

    def end(_: object, progress: Progress) -> None:
        if progress.codebook == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    with mock.patch.object(Log, "__call__", end):
        fit_on_ranks(world, folder, port, out)


@contextmanager
def _torchrun(world: World, port: int) -> Iterator[None]:
    if world.size == 1:
        yield
        return
    meeting = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test"}
    numbers = {"RANK": world.rank, "LOCAL_RANK": world.rank, "WORLD_SIZE": world.size}
    with mock.patch.dict(os.environ, meeting | {name: str(number) for name, number in numbers.items()}):
        yield


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with embeddings, two of which are not finite."""
    x = clustered()
    x[[3, 150]] = np.nan
    np.save(tmp_path / "items.npy", x)
    return tmp_path


def error_of(folder: Path, out: str) -> float:
    """The mean squared error of a fitted quantizer."""
    x = torch.from_numpy(np.load(folder / "items.npy"))
    x = x[x.isfinite().all(-1)]
    quantizer = quantizers.load(folder / out)
    return float((x - quantizer.decode(quantizer.encode(x)).detach()).square().sum(-1).mean())


def test_several_ranks_are_one_command(ranks: Ranks, folder: Path) -> None:
    """The first prints and writes; the codes are those of one process up to the order of summation."""
    (code, output), (other_code, other_output) = ranks.run(2, fit_on_ranks, folder, free_port(), "two")
    assert (code, other_code, other_output) == (0, 0, "")
    assert "298 vectors of 8 channels" in output
    assert "2 rows are not finite and have no code: 3, 150" in output
    assert fit(folder, "one")[0] == 0
    # A vector between two codes may change sides by a rounding, which changes the error by little.
    assert error_of(folder, "two") == pytest.approx(error_of(folder, "one"), rel=0.02)


def test_an_error_of_all_ranks_is_printed_once(ranks: Ranks, folder: Path) -> None:
    answers = ranks.run(2, fit_on_ranks, folder, free_port(), "ids", "--codebook-size", "999")
    assert [code for code, _ in answers] == [2, 2]
    assert "fewer" not in answers[1][1]
    assert answers[0][1].startswith("Error: ")
    assert answers[1][1] == ""


@pytest.mark.parametrize("size", [1, 2])
def test_a_killed_run_resumes(ranks: Ranks, folder: Path, size: int) -> None:
    """With the result of an uninterrupted one, bit for bit."""
    with pytest.raises(RankError, match="ended without an answer"):
        ranks.run(size, killed, folder, free_port(), "ids")
    assert not (folder / "ids/ids.npy").exists()
    assert (folder / "ids/checkpoint.pt").exists()
    for out in ("ids", "whole"):
        assert ranks.run(size, fit_on_ranks, folder, free_port(), out)[0][0] == 0
    for name in ("ids.npy", "model.safetensors"):
        assert (folder / "ids" / name).read_bytes() == (folder / "whole" / name).read_bytes()
