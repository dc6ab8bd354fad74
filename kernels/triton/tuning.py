"""Autotuning of the nearest-code search, for who wants it: nothing is measured unless `tune` is called.

Tile sizes follow from the shape and the device, and every one of them is known to compile without spills. What is
left to a measurement is into how many parts the codes are split where few rows must fill a large chip.
"""

import statistics
import time

import torch
from torch import Tensor

from quantizers.kernels.triton.nearest import nearest_code, search_of
from quantizers.kernels.triton.tiles import tuned

PROGRAMS = (1, 2, 4, 8, 16)  # a multiprocessor


def tune(x: Tensor, codebook: Tensor, repetitions: int = 5) -> dict[int, float]:
    """Measure the search of these tensors with each number of programs a multiprocessor, and keep the fastest.

    It is kept in this process for searches of the same shape, precision and kind of device. Waits for the device.

    Args:
        x: [H, N, D], codebook: [H, K, D], on the GPU. repetitions: of each, of which the median counts.

    Returns: milliseconds for each number. Results of a search do not depend on it.
    """
    search, times = search_of(x, codebook), {}
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
