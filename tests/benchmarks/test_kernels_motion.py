"""The benchmark of the kernels: a codebook that moves between two runs, and what of a run is timed."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.kernels import timing
from benchmarks.kernels.motion import STEP, Moving, step_length
from benchmarks.kernels.rivals import WithSetup

CPU = torch.device("cpu")
EPSILON = 2.0**-24


@given(size=st.integers(1, 40), dim=st.integers(1, 9), steps=st.integers(1, 5), seed=st.integers(0, 99))
def test_each_code_moves_by_the_same_length_in_place(size: int, dim: int, steps: int, seed: int) -> None:
    """A direction has n components with an error of a few ulp each, and a sum of two numbers below 8 is rounded to
    within 4 · 2⁻²³."""
    length = 0.25
    codes = torch.randn(size, dim, generator=torch.Generator().manual_seed(seed)).clamp(-6, 6)
    given_codes, moving = codes.clone(), Moving(codes, length)
    moving.step()
    assert torch.equal(codes, given_codes)
    for _ in range(steps):
        before = codes.clone()
        moving.step()
        moved = (codes.double() - before.double()).norm(dim=1)
        assert float((moved - length).abs().max()) <= math.sqrt(dim) * 8 * EPSILON + length * (dim + 4) * EPSILON
    assert moving.codes.data_ptr() == codes.data_ptr()


def test_codes_do_not_move_in_the_same_directions_again() -> None:
    codes = torch.zeros(50, 8)
    moving = Moving(codes, 1.0)
    places = []
    for _ in range(3):
        moving.step()
        places.append(codes.clone())
    first, second = places[1] - places[0], places[2] - places[1]
    assert float((first * second).sum(1).abs().mean()) < 0.5


def test_a_step_is_a_hundredth_of_the_distance() -> None:
    x = torch.tensor([[3.0, 0.0], [0.0, 4.0], [10.0, 1.0]])
    codebook = torch.tensor([[0.0, 0.0], [10.0, 0.0]])
    assert step_length(x, codebook) == pytest.approx(STEP * math.sqrt((9 + 16 + 1) / 3))


def test_setup_is_not_timed_but_runs_before_each_run(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds, order = [0.0], []

    def takes(name: str, duration: float) -> tuple[torch.Tensor, ...]:
        seconds[0] += duration
        order.append(name)
        return ()

    monkeypatch.setattr(timing.time, "perf_counter", lambda: seconds[0])
    work = WithSetup(lambda: takes("setup", 5), lambda: takes("run", 0.25))
    assert timing.milliseconds(work, CPU) == 250
    work()
    assert order == ["setup", "run"] * 2
