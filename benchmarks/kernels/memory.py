"""Peak memory of one run, beyond its inputs and outputs.

On a CPU, this is the high-water mark of the resident memory of a process that does nothing else, which includes
memory that libraries allocate outside torch's allocator. On a GPU, it comes from torch's own statistics.
"""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import torch
from torch import Tensor

from benchmarks import residency
from benchmarks.kernels.pruned import FIRST_CALL
from benchmarks.kernels.rivals import SEARCHES, Rival, Work
from benchmarks.kernels.shapes import Shape, draw
from benchmarks.kernels.steps import STEPS
from benchmarks.kernels.timing import fits

PRELOADED = (
    "torch._dynamo",
    "sklearn.metrics",
    "vector_quantize_pytorch",
)  # modules that are not installed are skipped
WARM_UP = 64  # vectors and codes of a first run, which loads libraries and starts threads


def allowance(shape: Shape) -> int:
    """Return the bytes that a run may take beyond inputs and outputs: 64 MiB + 8·(N + K)·D."""
    return 64 * 2**20 + 8 * (shape.n + shape.k) * shape.d


def peak_memory(rival: Rival, shape: Shape, device: torch.device) -> int | None:
    """Return bytes; None if they cannot be measured (too little memory, an error in the run, a CPU without
    /proc)."""
    if not fits(rival, shape, device):
        return None
    if device.type == "cuda":
        return _guarded(rival, shape, device)
    if not residency.is_measurable():
        return None
    # A server process, with slow imports already done, forks a process for each measurement.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *PRELOADED])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(_in_process, rival.name, shape, device, torch.get_num_threads()).result()
        except BrokenProcessPool:  # killed, most likely because of its memory
            return None


def _in_process(name: str, shape: Shape, device: torch.device, threads: int) -> int | None:
    """Measure in this process, by name, since a rival's functions cannot be pickled."""
    torch.set_num_threads(threads)
    (rival,) = [rival for rival in (*SEARCHES, *STEPS, FIRST_CALL) if rival.name == name]
    return _guarded(rival, shape, device)


def _guarded(rival: Rival, shape: Shape, device: torch.device) -> int | None:
    try:
        return measure(rival, shape, device)
    except Exception:  # reported when the same run is timed
        return None


def measure(rival: Rival, shape: Shape, device: torch.device) -> int:
    """Measure in this process."""
    rival.prepare(*draw(Shape(WARM_UP, WARM_UP, shape.d), device))()
    work = rival.prepare(*draw(shape, device))
    peak, outputs = _cuda_peak(work, device) if device.type == "cuda" else resident_peak(work)
    return max(0, peak - sum(output.nbytes for output in outputs))


def resident_peak(work: Work) -> tuple[int, Sequence[Tensor]]:
    before = residency.reset()
    outputs = work()
    return residency.high_water_mark() - before, outputs


def _cuda_peak(work: Work, device: torch.device) -> tuple[int, Sequence[Tensor]]:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    outputs = work()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before, outputs
