"""Opt-in autotuning of the nearest-code search: nothing is measured unless `tune` is called.

Tile sizes follow from the shape and the device, and all of them compile without spills. Two choices depend on
measurements: the number of splits of the codes when few rows must fill a large chip, and whether the leaves of a
tree over the codes let enough of them be skipped.
"""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from quantizers.kernels.common.dispatch import triton_obstacle
from quantizers.kernels.common.vectors import compute_dtype
from quantizers.kernels.nearest.triton.nearest import nearest_code, search_of
from quantizers.kernels.nearest.triton.pruned.order import CodeOrder, build_order, leaf_of, orders
from quantizers.kernels.nearest.triton.tiles import Search, layout, tiles_of, tuned

PROGRAMS = (1, 2, 4, 8, 16)  # per multiprocessor


class Choice(NamedTuple):
    """One way to run a search."""

    programs: int  # per multiprocessor
    pruned: bool  # only the leaves of the tree that may contain the nearest code, not all codes


def tune(x: Tensor, codebook: Tensor, repetitions: int = 5) -> dict[Choice, float]:
    """Measure the search of these tensors in each way, and use the fastest from now on.

    The choice applies in this process to searches of the same shape, precision and kind of device. If it is the
    pruned search, so does the order of these codes: a search of other codes has the same results in it, but the
    less they resemble these, the fewer it can skip. Measure again when the codes have moved far. Synchronizes with
    the device.

    Args:
        x, codebook: [H, N, D] and [H, K, D], on the GPU.
        repetitions: runs for each choice; their median counts.

    Returns: milliseconds of the device for each choice, of a CUDA graph of the search. The results of a search do
        not depend on it, except that the modes without a certificate may take another of several codes with equal
        or nearly equal scores.

    Raises: RuntimeError where Triton's kernels cannot run, with the reason.
    """
    if reason := triton_obstacle(x.device):
        raise RuntimeError(f"the search cannot be tuned: {reason}")
    search, times = search_of(x, codebook), {}
    with torch.cuda.device_of(x):
        # Searches in float64 score all codes.
        order = order_for(search, codebook) if compute_dtype(x, codebook) != torch.float64 else None
        ways = (False, True) if order is not None else (False,)
        for choice in [Choice(programs, pruned) for pruned in ways for programs in PROGRAMS]:
            use(search, choice, order)
            nearest_code(x, codebook)  # compiles
            run = _captured(x, codebook) if x.is_cuda else lambda: nearest_code(x, codebook)
            times[choice] = statistics.median(_milliseconds(run, x.device) for _ in range(repetitions))
    use(search, min(times, key=lambda choice: times[choice]), order)
    return times


def order_for(search: Search, codebook: Tensor) -> CodeOrder:
    """Return the order of the codes [H, K, D] in leaves of the size that the search walks."""
    cut = layout(search.d, search.device)
    return build_order(codebook, leaf_of(tiles_of(search, cut), cut))


def use(search: Search, choice: Choice, order: CodeOrder | None) -> None:
    """Run searches of these properties in this way from now on, in this order of the codes if it is pruned."""
    tuned[search] = choice.programs
    orders.pop(search, None)
    if choice.pruned and order is not None:
        orders[search] = order


def _captured(x: Tensor, codebook: Tensor) -> Callable[[], object]:
    """Return the replay of a CUDA graph of the search: the host may need more time than the device."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        nearest_code(x, codebook)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        nearest_code(x, codebook)
    return graph.replay


def _milliseconds(run: Callable[[], object], device: torch.device) -> float:
    if device.type != "cuda":  # in the interpreter
        start = time.perf_counter()
        run()
        return (time.perf_counter() - start) * 1000
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    before.record()
    run()
    after.record()
    after.synchronize()
    milliseconds: float = before.elapsed_time(after)
    return milliseconds
