"""CUDA graphs of benchmarked work: what its kernels take, without what the host takes to launch them."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.kernels.rivals import Rival, Work
from benchmarks.kernels.timing import first_line


def captured(work: Work) -> Work:
    """Return the replay of a graph of the work. Raises: RuntimeError with the reason if it cannot be captured."""
    stream = torch.cuda.current_stream()
    side = torch.cuda.Stream()
    side.wait_stream(stream)
    with torch.cuda.stream(side):
        for _ in range(2):  # compiles and loads its kernels, and allocates what stays
            work()
    stream.wait_stream(side)
    generator = torch.cuda.default_generators[torch.cuda.current_device()]
    before, graph = generator.clone_state(), torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            outputs = work()
    except Exception as error:
        # A capture that fails leaves its stream as the current one, and random numbers bound to its graph.
        torch.cuda.set_stream(stream)
        generator.graphsafe_set_state(before)
        raise RuntimeError(first_line(first_cause(error))) from error

    def replay() -> tuple[Tensor, ...]:
        graph.replay()
        return outputs

    return replay


def first_cause(error: BaseException) -> BaseException:
    """Return the error that led to this one: the end of a failed capture says only that it failed."""
    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    return error


def as_graph(rival: Rival) -> Rival:
    """Return the rival as the replay of a graph, under a name that says so."""
    prepare: Callable[[Tensor, Tensor], Work] = lambda x, codebook: captured(rival.prepare(x, codebook))  # noqa: E731
    return replace(rival, name=named_graph(rival.name), prepare=prepare, devices=("cuda",))


def named_graph(name: str) -> str:
    """Return the name of the graph of the contender with this name."""
    return f"{name}, graph"
