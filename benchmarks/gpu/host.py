"""What the host does in an operation or a training step: waits for the device, launches kernels, compiles."""

import statistics
from collections.abc import Callable

import torch
from torch import Tensor

import quantizers
from benchmarks.gpu.compiling import Compiled, watch_compiler, watch_interpreter
from benchmarks.gpu.graphs import captured
from benchmarks.gpu.implementations import ema_code_sums, nearest_code, nearest_lookup, use_implementation
from benchmarks.gpu.profiling import of_kernels, profiled, total_us
from benchmarks.gpu.stages import Numbers, Place
from benchmarks.kernels.rivals import Work
from benchmarks.kernels.shapes import Shape, draw
from benchmarks.kernels.timing import first_line, milliseconds

SHAPE, TINY = Shape(8192, 512, 64), Shape(64, 40, 8)
BATCH_SIZES = (1, 2, 3, 7, 64, 100, 101, 102, 103, 1000, 4097)
VARIANTS = "variants over eleven batch sizes"
RUNS = 15


def _nearest_code(x: Tensor, codebook: Tensor) -> Work:
    return lambda: nearest_code(x[None], codebook[None])


def _nearest_lookup(x: Tensor, codebook: Tensor) -> Work:
    return lambda: nearest_lookup(x[None], codebook[None], 0.25, 0.0)


def _ema_code_sums(x: Tensor, codebook: Tensor) -> Work:
    indices = torch.arange(len(x), device=x.device)[None] % len(codebook)
    sizes = torch.ones(1, len(codebook), device=x.device)
    return lambda: ema_code_sums(x[None], indices, sizes, codebook[None], 0.99)


def _step(name: str) -> Callable[[Tensor, Tensor], Work]:
    """A training step without the gradients of parameters, so that nothing but the module's state changes."""

    def prepare(x: Tensor, codebook: Tensor) -> Work:
        size, dim = codebook.shape
        module = quantizers.create(name, dim=dim, codebook_size=size).to(x.device)
        leaf = x.clone().requires_grad_()

        def run() -> tuple[Tensor, ...]:
            out = module(leaf)
            return torch.autograd.grad(out.quantized.sum() + out.loss, leaf)

        return run

    return prepare


CALLS: dict[str, Callable[[Tensor, Tensor], Work]] = {
    "nearest_code": _nearest_code,
    "nearest_lookup": _nearest_lookup,
    "ema_code_sums": _ema_code_sums,
    **{f"step of {name}": _step(name) for name in ("vq", "ema_vq", "rotation_vq", "gumbel", "fsq")},
}


def measure(name: str, place: Place) -> Numbers:
    """Measure one call, or the variants of kernels that batches of many sizes need."""
    with use_implementation("triton"):
        if name == VARIANTS:
            return {"variants": count_variants(place)}
        work = CALLS[name](*draw(TINY if place.interpreted else SHAPE, place.device))
        work()
        place.wait()
        return {} if place.interpreted else _measure(work, place)


def _measure(work: Work, place: Place) -> Numbers:
    numbers: Numbers = {"eager_us": 1000 * _median(work, place)}
    numbers |= _profiled(work, place)
    numbers["waits"] = _first_wait(work, place)
    try:
        numbers["graph_us"] = 1000 * _median(captured(work), place)
    except RuntimeError as error:
        numbers["no_graph"] = first_line(error)
    return numbers


def _median(work: Work, place: Place) -> float:
    work()
    return statistics.median(milliseconds(work, place.device) for _ in range(RUNS))


def _profiled(work: Work, place: Place) -> Numbers:
    """Return how many kernels a call launches, their microseconds on the device, and those of each, or why that is
    unknown."""
    try:
        launched = profiled(work, place)
    except RuntimeError as error:
        return {"no_profile": first_line(error)}
    kernels = of_kernels(launched)
    return {
        "kernels_launched": sum(int(numbers["launches"]) for numbers in kernels.values()),
        "device_us": total_us(kernels),
        "launched": launched,
    }


def _first_wait(work: Work, place: Place) -> str | None:
    """Return what made the host wait for the device, if anything did."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        work()
    except RuntimeError as error:
        return first_line(error)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return None


def count_variants(place: Place) -> dict[str, int]:
    """Return how many variants of each kernel of a search are loaded for batches of many sizes; one is enough."""
    codebook = torch.randn(1, 40, 12, device=place.device)
    sizes = BATCH_SIZES[:5] if place.interpreted else BATCH_SIZES
    with watch_interpreter() if place.interpreted else watch_compiler() as kernels:
        for n in sizes:
            nearest_code(torch.randn(1, n, 12, device=place.device), codebook)
    return _variants(kernels)


def _variants(kernels: Compiled) -> dict[str, int]:
    return {name: int(numbers["variants"]) for name, numbers in kernels.items()}
