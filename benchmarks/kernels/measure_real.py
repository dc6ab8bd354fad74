"""The measurements on real data: searches, whole training steps, and the growth with the number of codes."""

from pathlib import Path

import torch
from torch import Tensor

from benchmarks.kernels.exactness import wrong_share
from benchmarks.kernels.gemm import GEMMS
from benchmarks.kernels.latents import Latents
from benchmarks.kernels.memory import allowance, peak_memory
from benchmarks.kernels.pruned import FIRST_CALL, PRUNED, TRAINING, Search
from benchmarks.kernels.real import RealData
from benchmarks.kernels.results import Point, RealRow
from benchmarks.kernels.rivals import FAISS, SEARCHES, Rival, usable
from benchmarks.kernels.shapes import Shape
from benchmarks.kernels.steps import STEPS
from benchmarks.kernels.timing import interleave

CPU = torch.device("cpu")
BUDGET_S = 0.3  # per rival and data set
LEAST = 2  # timed runs of a step and among many codes, where those of others take seconds
JUDGED = 1024  # vectors whose indices are compared with float64 distances
SIZES = (1024, 4096, 16384, 65536, 262144)  # codes in the picture


def searches() -> list[Rival]:
    """Return what the tables of real data compare, apart from the first call."""
    (faiss,) = [rival for rival in SEARCHES if rival.name == FAISS]
    return usable((*GEMMS, faiss, *PRUNED), CPU)[0]


def measure_search(data: RealData, folder: Path, rows: list[RealRow]) -> None:
    x, codebook = data.load(folder)
    rivals = searches()
    times, failures = interleave(rivals, x, codebook, budget_s=BUDGET_S)
    first, failed = interleave([FIRST_CALL], x, codebook, budget_s=BUDGET_S)
    row = RealRow(
        data.shape, [*rivals, FIRST_CALL], allowance(data.shape), times | first, failures | failed, data=data.name
    )
    timed = [rival.name for rival in GEMMS if rival.name in times]
    row.gemm = min(timed, key=lambda name: times[name].median, default="")
    if not row.failures:
        row.share, row.wrong, row.different = judge(x, codebook)
    rows.append(row)


def measure_memory(rows: list[RealRow], index: int) -> None:
    """Measure what the first call allocates, including what later ones reuse."""
    row = rows[index]
    row.memory = {FIRST_CALL.name: peak_memory(FIRST_CALL, row.shape, CPU)}


def judge(x: Tensor, codebook: Tensor) -> tuple[float | None, float, float]:
    """Return `share`, `wrong` and `different` of a RealRow; the latter two are the worst of evaluation and of a
    search that rules out codes whether or not this pays."""
    evaluation = Search(x, codebook, "auto")
    evaluation.settle()
    expected = Search(x, codebook, "never")()[0]
    found = [evaluation()[0], Search(x, codebook, "always")()[0]]
    wrong = max(wrong_share(indices[:JUDGED], x[:JUDGED], codebook) for indices in found)
    different = max(float((indices != expected).double().mean()) for indices in found)
    return evaluation.share, wrong, different


def measure_step(data: RealData, folder: Path, rows: list[RealRow]) -> None:
    """Time a training step beside the search in it."""
    (search,) = [rival for rival in PRUNED if rival.name == TRAINING]
    rivals, _ = usable((search, *STEPS), CPU)
    times, failures = interleave(rivals, *data.load(folder), budget_s=BUDGET_S, least=LEAST)
    rows.append(RealRow(data.shape, rivals, allowance(data.shape), times, failures, data=data.name))


def measure_size(made: Latents, size: int, folder: Path, points: list[Point]) -> None:
    """Time searches among `size` codes: some of those that were learned, or all of them and further latents."""
    x, codebook = of_size(made.load(folder), size)
    times, _ = interleave(searches(), x, codebook, budget_s=BUDGET_S, least=LEAST)
    points.append(Point(Shape(len(x), size, x.shape[1]), times))


def of_size(stored: dict[str, Tensor], size: int) -> tuple[Tensor, Tensor]:
    """Return vectors [N, D] and codes [size, D], drawn from the learned ones before the further latents."""
    codes = stored["codebook"]
    order = torch.randperm(len(codes), generator=torch.Generator().manual_seed(0))
    return stored["x"], torch.cat([codes[order], stored["further"]])[:size].contiguous()
