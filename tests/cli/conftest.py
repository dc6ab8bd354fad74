"""Small files of embeddings, and the command in this process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from quantizers.cli.app import app

COUNT, DIM = 300, 8

Run = Callable[..., Any]


def clustered(count: int = COUNT, dim: int = DIM, seed: int = 0) -> np.ndarray:
    """Vectors float32 [count, dim] around twenty centres."""
    draws = np.random.default_rng(seed)
    centres = draws.normal(size=(20, dim)) * 3
    return (centres[draws.integers(20, size=count)] + draws.normal(size=(count, dim))).astype(np.float32)


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test in a folder of its own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def items(tmp_path: Path) -> Path:
    """items.npy with clustered vectors."""
    np.save(tmp_path / "items.npy", clustered())
    return tmp_path / "items.npy"


@pytest.fixture
def run() -> Run:
    """Runs a command with the given words."""

    def invoke(*words: object) -> Any:
        return CliRunner().invoke(app, [str(word) for word in words])

    return invoke


@pytest.fixture
def fit(run: Run, items: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `fit items.npy` with small settings, without the picture, which takes longer; later options win."""
    monkeypatch.setattr("quantizers.cli.results.draw", lambda path, _: path.write_bytes(b"drawn"))

    def invoke(*words: object) -> Any:
        small = ["--levels", 2, "--codebook-size", 32, "--epochs", 2, "--batch-size", 128, "--out", "ids"]
        return run("fit", items, *small, *words)

    return invoke
