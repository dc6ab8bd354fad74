"""pytest-benchmark groups, one per shape. Run by hand: `pytest benchmarks/bench_kernels.py`, with `-k 8192x512x64`
for a single shape.

The command `python -m benchmarks kernels` interleaves the implementations and judges them. This file is for a
close look at one of them.
"""

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.kernels.gemm import GEMMS
from benchmarks.kernels.rivals import SEARCHES, Rival, WithSetup, usable
from benchmarks.kernels.shapes import SHAPES, Shape, draw
from benchmarks.kernels.steps import STEPS
from benchmarks.kernels.timing import fits

CPU = torch.device("cpu")


def named(rivals: list[Rival]) -> list[object]:
    return [pytest.param(rival, id=rival.name) for rival in rivals]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("rival", named(usable((*SEARCHES, *GEMMS), CPU)[0]))
def test_search(benchmark: BenchmarkFixture, rival: Rival, shape: Shape) -> None:
    time_one(benchmark, rival, shape, "search")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("rival", named(usable(STEPS, CPU)[0]))
def test_training_step(benchmark: BenchmarkFixture, rival: Rival, shape: Shape) -> None:
    time_one(benchmark, rival, shape, "training step")


def time_one(benchmark: BenchmarkFixture, rival: Rival, shape: Shape, kind: str) -> None:
    if not fits(rival, shape, CPU):
        pytest.skip("not enough memory")
    benchmark.group = f"{kind} {shape}"
    work = rival.prepare(*draw(shape, CPU))
    setup, run = (work.setup, work.run) if isinstance(work, WithSetup) else (lambda: None, work)

    def move() -> None:  # the fixture would pass on what it returned
        setup()

    benchmark.pedantic(run, setup=move, rounds=3, warmup_rounds=1)
