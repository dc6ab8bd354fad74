"""Autotuning keeps what was the fastest, and changes no result."""

import pytest
import torch

from quantizers.kernels.nearest.triton import tuning
from quantizers.kernels.nearest.triton.nearest import nearest_code, search_of
from quantizers.kernels.nearest.triton.tiles import layout, tiles, tiles_of, tuned
from tests.triton.interpreter import device, runs_kernels

pytestmark = runs_kernels


def test_the_fastest_is_kept_for_searches_of_the_same_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "PROGRAMS", (1, 2, 4))
    x, codebook = torch.randn(1, 20, 3).to(device()), torch.randn(1, 600, 3).to(device())
    expected = nearest_code(x, codebook)
    search = search_of(x, codebook)
    cut = layout(search.d, search.device)
    slowness = {1: 3.0, 2: 1.0, 4: 2.0}
    monkeypatch.setattr(tuning, "_milliseconds", lambda *_: slowness[tuned[search_of(x, codebook)]])
    try:
        assert tuning.tune(x, codebook, repetitions=2) == slowness
        assert tuned == {search: 2}
        # Not fewer splits than before: a device with many multiprocessors gives a step of codes to each program.
        assert tiles_of(search, cut) == tiles(search.n, search.k, cut, search.device, programs=2)
        for actual, before in zip(nearest_code(x, codebook), expected, strict=True):
            assert torch.equal(actual, before)
        assert search_of(x[:, :1].expand(1, 200, 3), codebook) not in tuned  # another shape is measured by itself
    finally:
        tuned.clear()


def test_a_clock_that_runs() -> None:
    x, codebook = torch.randn(1, 5, 3).to(device()), torch.randn(1, 9, 3).to(device())
    try:
        times = tuning.tune(x, codebook, repetitions=1)
        assert set(times) == set(tuning.PROGRAMS)
        assert all(value > 0 for value in times.values())
    finally:
        tuned.clear()
