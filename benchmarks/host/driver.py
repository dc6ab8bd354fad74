"""A driver for Triton that compiles kernels for a GPU and launches nothing.

With it, calls on tensors of the CPU take the path of a GPU: Triton compiles each kernel for compute capability
9.0, and hands it to a launcher that only tells of it. What kernels would write is uninitialised memory.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase

from quantizers.kernels.common import dispatch
from quantizers.kernels.common.triton import replay

SHARED_MEMORY = 227 * 1024  # bytes a block may use
MOST_THREADS = 1024  # of a block
TARGET = GPUTarget("cuda", 90, 32)


class Launch(NamedTuple):
    """What a launcher gets."""

    kernel: str
    grid: tuple[int, int, int]
    arguments: tuple[Any, ...]


class _Utilities:
    """What Triton asks a driver for when it loads a kernel."""

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": SHARED_MEMORY}

    def load_binary(self, name: str, binary: bytes, shared: int, device: int) -> tuple[int, int, int, int, int]:
        """Return module, function, registers, spills and the most threads of a block."""
        return 1, 1, 0, 0, MOST_THREADS


class _Driver(DriverBase):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.utils = _Utilities()
        self.on_launch: Callable[[Launch], object] = id  # until a block says what it wants

    def launcher_cls(self, source: Any, metadata: Any) -> Callable[..., None]:
        """Return what Triton calls with a grid, seven arguments of its own, and those of the kernel."""

        def launch(x: int, y: int, z: int, *arguments: Any) -> None:
            self.on_launch(Launch(metadata.name, (x, y, z), arguments[6:]))

        return launch

    @classmethod
    def is_active(cls) -> bool:
        return True

    def map_python_to_cpp_type(self, ty: str) -> str:
        return ty

    def get_current_target(self) -> GPUTarget:
        return TARGET

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def get_benchmarker(self) -> Any:
        raise NotImplementedError

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


_DRIVER = _Driver()  # one, since Triton keeps a kernel's launcher as long as the process lives


@contextlib.contextmanager
def host_only(on_launch: Callable[[Launch], object]) -> Iterator[None]:
    """In the block, operations on the CPU's tensors take the path of a GPU, and Triton launches nothing.

    Not under TRITON_INTERPRET=1, and not in a process that also launches kernels: Triton keeps what it compiled.

    Args:
        on_launch: is told of each launch of a kernel.
    """
    try:
        with (
            # `reset_active` would look for a GPU.
            mock.patch.object(triton.runtime.driver, "_active", _DRIVER),
            mock.patch.object(_DRIVER, "on_launch", on_launch),
            mock.patch.object(dispatch, "triton_obstacle", return_value=""),
            dispatch.use_implementation("triton"),
        ):
            yield
    finally:
        replay.forget()
