"""Autotuning keeps what was the fastest, and changes no result."""

from collections.abc import Iterator

import pytest
import torch

from quantizers.kernels.nearest.triton import tuning
from quantizers.kernels.nearest.triton.nearest import nearest_code, search_of
from quantizers.kernels.nearest.triton.pruned.order import build_order, orders
from quantizers.kernels.nearest.triton.tiles import layout, tiles, tiles_of, tuned
from quantizers.kernels.nearest.triton.tuning import Choice
from tests.triton.interpreter import device, runs_kernels

pytestmark = runs_kernels


@pytest.fixture(autouse=True)
def _nothing_stays_tuned() -> Iterator[None]:
    yield
    tuned.clear()
    orders.clear()


@pytest.mark.parametrize("fastest", [Choice(2, pruned=False), Choice(4, pruned=True)])
def test_the_fastest_is_kept_for_searches_of_the_same_shape(
    fastest: Choice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "PROGRAMS", (1, 2, 4))
    x, codebook = torch.randn(1, 20, 3).to(device()), torch.randn(1, 600, 3).to(device())
    expected = nearest_code(x, codebook)
    search = search_of(x, codebook)
    cut = layout(search.d, search.device)
    choices = [Choice(programs, pruned) for pruned in (False, True) for programs in (1, 2, 4)]
    slowness = {choice: 1.0 + (choice != fastest) for choice in choices}

    def milliseconds(*_: object) -> float:
        return slowness[Choice(tuned[search_of(x, codebook)], search_of(x, codebook) in orders)]

    monkeypatch.setattr(tuning, "_milliseconds", milliseconds)
    assert tuning.tune(x, codebook, repetitions=2) == slowness
    assert tuned == {search: fastest.programs}
    # Not fewer splits than before: a device with many multiprocessors gives a step of codes to each program.
    assert tiles_of(search, cut) == tiles(search.n, search.k, cut, search.device, programs=fastest.programs)
    assert list(orders) == [search] * fastest.pruned
    if fastest.pruned:
        order = build_order(codebook, orders[search].leaf)
        assert all(torch.equal(*map(torch.as_tensor, pair)) for pair in zip(orders[search], order, strict=True))
    for actual, before in zip(nearest_code(x, codebook), expected, strict=True):
        assert torch.equal(actual, before)
    assert search_of(x[:, :1].expand(1, 200, 3), codebook) not in tuned  # another shape is measured by itself


def test_a_clock_that_runs() -> None:
    x, codebook = torch.randn(1, 5, 3).to(device()), torch.randn(1, 9, 3).to(device())
    times = tuning.tune(x, codebook, repetitions=1)
    assert set(times) == {Choice(programs, pruned) for programs in tuning.PROGRAMS for pruned in (False, True)}
    assert all(value > 0 for value in times.values())


def test_float64_is_not_pruned() -> None:
    x, codebook = torch.randn(1, 5, 3).to(device(), torch.float64), torch.randn(1, 9, 3).to(device())
    assert set(tuning.tune(x, codebook, repetitions=1)) == {Choice(each, False) for each in tuning.PROGRAMS}
    assert orders == {}
