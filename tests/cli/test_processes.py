"""The command in processes of its own: killed, and several at once."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import quantizers
from tests.cli.conftest import clustered

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--levels", "2", "--codebook-size", "64", "--batch-size", "500"]


def command(folder: Path, *words: str, launcher: tuple[str, ...] = ()) -> list[str]:
    where = ["fit", str(folder / "items.npy"), *SMALL, "--out", str(folder / "ids")]
    return [sys.executable, *launcher, "-m", "quantizers", *where, *words]


@pytest.mark.slow
def test_a_killed_run_resumes(tmp_path: Path) -> None:
    np.save("items.npy", clustered(2000))
    many = ("--epochs", "60")
    process = subprocess.Popen(command(tmp_path, *many), cwd=ROOT, stdout=subprocess.DEVNULL)
    while not (tmp_path / "ids/checkpoint.pt").exists():
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "ids/ids.npy").exists()
    for words in (many, (*many, "--out", str(tmp_path / "whole"))):
        done = subprocess.run(command(tmp_path, *words), cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    for name in ("ids.npy", "model.safetensors"):
        assert (tmp_path / "ids" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.slow
def test_several_ranks_are_one_command(tmp_path: Path) -> None:
    """They print and write once, and find the codes of one process up to the order of summation."""
    x = clustered(2000)
    x[[3, 1500]] = np.nan
    np.save("items.npy", x)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    done = subprocess.run(command(tmp_path, launcher=launcher), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("perplexity") == done.stdout.count("In ") == 1
    assert "2 rows are not finite" in done.stdout
    one = command(tmp_path, "--out", str(tmp_path / "one"))
    assert subprocess.run(one, cwd=ROOT, capture_output=True).returncode == 0
    rows = torch.from_numpy(x[np.isfinite(x).all(-1)])
    errors = []
    for folder in ("ids", "one"):
        quantizer = quantizers.load(tmp_path / folder)
        value = quantizer.decode(quantizer.encode(rows)).detach()
        errors.append(float((rows - value).square().sum(-1).mean()))
    # A vector between two codes may change sides by a rounding; each does not change the error by much.
    assert errors[0] == pytest.approx(errors[1], rel=0.02)
    bad = command(tmp_path, "--codebook-size", "9999", launcher=launcher)
    failed = subprocess.run(bad, cwd=ROOT, capture_output=True, text=True)
    assert failed.returncode != 0
    assert failed.stderr.count("Error: ") == 1 + failed.stderr.count("ChildFailedError: ")
