"""CUDA graphs of benchmarked work: what its kernels take, without what the host takes to launch them."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.kernels.rivals import Rival, Work


def captured(work: Work) -> Work:
    """Return the replay of a graph of the work. Raises: RuntimeError if it cannot be captured."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):  # compiles and loads its kernels, and allocates what stays
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = work()

    def replay() -> tuple[Tensor, ...]:
        graph.replay()
        return outputs

    return replay


def as_graph(rival: Rival) -> Rival:
    """Return the rival as the replay of a graph, under a name that says so."""
    prepare: Callable[[Tensor, Tensor], Work] = lambda x, codebook: captured(rival.prepare(x, codebook))  # noqa: E731
    return replace(rival, name=f"{rival.name}, graph", prepare=prepare, devices=("cuda",))
