"""Opt-in autotuning of the nearest-code search: nothing is measured unless `tune` is called.

Tile sizes follow from the shape and the device, and all of them compile without spills. Only one choice depends on
measurements: the number of splits of the codes when few rows must fill a large chip.
"""

import statistics
import time

import torch
from torch import Tensor

from quantizers.kernels.nearest.triton.nearest import nearest_code, search_of
from quantizers.kernels.nearest.triton.tiles import tuned

PROGRAMS = (1, 2, 4, 8, 16)  # per multiprocessor


def tune(x: Tensor, codebook: Tensor, repetitions: int = 5) -> dict[int, float]:
    """Measure the search of these tensors with each number of programs per multiprocessor, and use the fastest
    from now on.

    The choice applies in this process to searches of the same shape, precision and kind of device. Synchronizes
    with the device.

    Args:
        x, codebook: [H, N, D] and [H, K, D], on the GPU.
        repetitions: runs for each number of programs; their median counts.

    Returns: milliseconds for each number. The results of a search do not depend on the choice.
    """
    search, times = search_of(x, codebook), {}
    with torch.cuda.device_of(x):
        for programs in PROGRAMS:
            tuned[search] = programs
            nearest_code(x, codebook)  # compiles
            times[programs] = statistics.median(_milliseconds(x, codebook) for _ in range(repetitions))
    tuned[search] = min(times, key=lambda programs: times[programs])
    return times


def _milliseconds(x: Tensor, codebook: Tensor) -> float:
    _wait(x.device)
    start = time.perf_counter()
    nearest_code(x, codebook)
    _wait(x.device)
    return (time.perf_counter() - start) * 1000


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
