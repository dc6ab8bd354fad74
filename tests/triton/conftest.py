"""Every test of kernels starts in the exact mode of the search and leaves the setting as it was."""

from collections.abc import Iterator

import pytest
import torch

from quantizers.kernels.common.triton import replay
from quantizers.kernels.nearest.triton import pack, settle
from tests.triton.interpreter import QUICK


@pytest.fixture(autouse=True)
def _exact_mode() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture(autouse=True)
def _large_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    if QUICK:
        monkeypatch.setattr(pack, "TILE", 4 * pack.TILE)
        monkeypatch.setattr(settle, "ELEMENTS", 8 * settle.ELEMENTS)


@pytest.fixture(autouse=True)
def _nothing_recorded() -> None:
    """A test may change the constants that a recorded call has read."""
    replay.forget()
