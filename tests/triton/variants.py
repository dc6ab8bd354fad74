"""Record the launches of Triton kernels instead of running them: grids, compiled variants and launches of a call.

    with recorded_launches() as launches:
        nearest_code(x, codebook)  # on any device: the CPU, or "meta" for sizes beyond this machine's memory
    launches[0].name, launches[0].grid, launches[0].variant

    assert compiled_again(lambda n: nearest_code(torch.empty(1, n, 8), codebook)) == {}

Triton compiles a kernel once for each variant: types of the arguments, constants, and whether integers are 1 or
divisible by 16 and pointers aligned to 16 bytes. Nothing runs, so all results are uninitialised memory. A launcher
that reads no value back from the device makes the same launches as with results.

Needs no GPU; not under TRITON_INTERPRET=1, where `triton.jit` makes functions that have no variants.
"""

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple
from unittest import mock

from torch.utils._python_dispatch import TorchDispatchMode
from triton.backends.compiler import GPUTarget
from triton.compiler import make_backend
from triton.runtime.jit import JITFunction, create_function_from_signature

BATCH_SIZES = (1, 2, 7, 16, 48, 100, 127, 128, 255, 1024, 1500)  # odd, even, multiples of 4, 16 and 128

_GRID_LIMITS = (2**31 - 1, 2**16 - 1, 2**16 - 1)
_BACKEND = make_backend(GPUTarget("cuda", 90, 32))
_ALLOCATIONS = ("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided")
_NO_KERNEL = (*_ALLOCATIONS, "detach", "detach_", "lift_fresh", "promote_types", "_unsafe_view")


class Launch(NamedTuple):
    """One launch of a kernel."""

    name: str
    grid: tuple[int, ...]
    variant: str  # equal for launches that share one compiled kernel

    @property
    def fits(self) -> bool:
        """Whether CUDA accepts a grid of this size."""
        return all(0 < size <= limit for size, limit in zip(self.grid, _GRID_LIMITS, strict=False))


@contextlib.contextmanager
def recorded_launches() -> Iterator[list[Launch]]:
    """Yield a list to which each launch of a Triton kernel in the block is added; none of them runs."""
    launches: list[Launch] = []

    def record(kernel: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        bound, specialization, options = _binder(kernel)(*args, **kwargs)
        grid = grid(bound) if callable(grid) else grid
        launches.append(Launch(kernel.__name__, tuple(grid), repr((specialization, sorted(options.items())))))

    with mock.patch.object(JITFunction, "run", record):
        yield launches


def compiled_again(call: Callable[[int], object], sizes: Sequence[int] = BATCH_SIZES) -> dict[str, int]:
    """Return how many variants of each kernel `call(size)` compiles beyond those of the first size."""
    first = _variants(call, sizes[:1])
    return dict(Counter(name for name, _ in _variants(call, sizes[1:]) - first))


def _variants(call: Callable[[int], object], sizes: Iterable[int]) -> set[tuple[str, str]]:
    with recorded_launches() as launches:
        for size in sizes:
            call(size)
    return {(launch.name, launch.variant) for launch in launches}


@functools.cache
def _binder(kernel: Any) -> Callable[..., Any]:
    """Return what a launch computes first: arguments by name, their part of the variant, and the options."""
    binder: Callable[..., Any] = create_function_from_signature(kernel.signature, kernel.params, _BACKEND)
    return binder


class TorchKernels(TorchDispatchMode):
    """The names of PyTorch operations in a block, except views and allocations, which launch no kernel.

    What is allocated is zero, a valid index where no kernel runs that would write one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if not func.is_view and name not in _NO_KERNEL:
            self.names.append(name)
        result = func(*args, **(kwargs or {}))
        return result.zero_() if name in _ALLOCATIONS else result
