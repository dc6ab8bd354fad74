"""Selects the implementation that runs an operation.

- `reference`: the specification, in plain PyTorch and float64.
- `blocked`: a faster nearest-code search in plain PyTorch; every other operation uses the reference.
- `compiled`: C++ for a CPU, compiled on first use.
- `triton`: kernels for a GPU.

By default (`auto`), an operation uses the fastest implementation for its tensors' device. An implementation
requested by name runs or raises an error; it never falls back to another. An operation that has only a reference
implementation uses it under every name, and is counted as such.

What needs float64 runs on the CPU for the tensors of a device that has none, and its results return to the device.
"""

import contextlib
import functools
import importlib.util
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from quantizers.kernels.common.compat import exports_without_blocks
from quantizers.kernels.common.modes import runs_eagerly
from quantizers.kernels.common.wide import CPU, has_float64

IMPLEMENTATIONS = ("auto", "reference", "blocked", "compiled", "triton")
SMALLEST_TRITON = (3, 5)  # the first with products in float64
SMALLEST_CAPABILITY = (8, 0)  # the first with tf32 and bfloat16 products

RunCounts = Counter[tuple[str, str]]
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
_NO_BLOCK = contextlib.nullcontext()
_chosen: ContextVar[str] = ContextVar("chosen", default="auto")
_records: ContextVar[tuple[RunCounts, ...]] = ContextVar("records", default=())


@dataclass(frozen=True, kw_only=True)
class Operation(Generic[Arguments, Result]):
    """The functions that implement one operation. All take the same arguments, among them a tensor.

    `import_triton` imports and returns the function that launches the kernels: Triton may not be installed.
    `without_float64` names the implementation that runs on devices without float64; None if all need it.
    """

    name: str
    reference: Callable[Arguments, Result]
    blocked: Callable[Arguments, Result] | None = None
    compiled: Callable[Arguments, Result] | None = None
    import_triton: Callable[[], Callable[Arguments, Result]] | None = None
    without_float64: str | None = None

    def __post_init__(self) -> None:
        if self.name in OPERATIONS:
            raise ValueError(f"operation {self.name!r} is defined twice")
        OPERATIONS[self.name] = self

    def run(self, *arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        """Run the selected implementation and return its result. The first tensor argument determines the
        device.
        """
        tensor = next(argument for argument in arguments if isinstance(argument, Tensor))
        name, function = self._implementation(tensor)
        if name != self.without_float64 and not has_float64(tensor.device):
            result: Result = _carried(self.run(*_carried(arguments, CPU), **_carried(options, CPU)), tensor.device)
            return result
        self.count(name)
        with without_autocast(tensor.device), on_device_of(tensor) if name == "triton" else _NO_BLOCK:
            return function(*arguments, **options)

    def count(self, name: str) -> None:
        """Record that an implementation ran, in `run` or as a part of a larger kernel."""
        for record in _records.get():
            record[self.name, name] += 1

    def _implementation(self, tensor: Tensor) -> tuple[str, Callable[Arguments, Result]]:
        """Return the name and the function of the implementation that runs for this tensor."""
        name = _chosen.get()
        if name == "auto":
            name = self._fastest(tensor)
        elif reason := _obstacle(name, tensor):
            raise RuntimeError(f"implementation {name!r} cannot run {self.name}: {reason}")
        if name == "triton" and self.import_triton:
            return name, self.import_triton()
        function = {"blocked": self.blocked, "compiled": self.compiled}.get(name)
        return (name, function) if function else ("reference", self.reference)

    def _fastest(self, tensor: Tensor) -> str:
        fastest = {"cpu": "compiled", "cuda": "triton"}.get(tensor.device.type)
        if fastest:
            reason = _obstacle(fastest, tensor)
            if not reason:
                return fastest
            warn_once(f"{reason}\nSlower functions in plain PyTorch are used instead.")
        return "blocked"


OPERATIONS: dict[str, Operation[..., Any]] = {}
"""Every operation by its name, in the modules imported so far."""


def runs_triton(*tensors: Tensor) -> bool:
    """Whether a call in eager mode uses Triton, for functions that are PyTorch's own operations elsewhere."""
    device, name = tensors[0].device, chosen_implementation()
    if name != "triton" and (name != "auto" or device.type != "cuda"):
        return False
    return runs_eagerly(*tensors) and not triton_obstacle(device)


@contextlib.contextmanager
def use_implementation(name: str = "auto") -> Iterator[RunCounts]:
    """Run the operations in this block, in this thread, by the implementation of that name.

    Yields: a counter of the runs by (operation, implementation), including those in nested blocks:

        with use_implementation("compiled") as counts:
            quantizer(x)
        print(counts)  # Counter({("nearest_lookup", "compiled"): 1})

    The backward of a forward in the block uses the same implementation, wherever it is called. A graph made by
    `torch.compile` or `torch.export` is not bound to the implementation during tracing: its operations, including
    backward ones, use the implementation that is selected when the graph runs.

    Raises: ValueError for an unknown name. Inside the block, an operation that the implementation cannot run
    raises a RuntimeError with the reason.
    """
    if name not in IMPLEMENTATIONS:
        raise ValueError(f"implementation is {name!r}, expected one of {list(IMPLEMENTATIONS)}")
    counts: RunCounts = Counter()
    chosen, records = _chosen.set(name), _records.set((*_records.get(), counts))
    try:
        yield counts
    finally:
        _chosen.reset(chosen)
        _records.reset(records)


def chosen_implementation() -> str:
    """Return the selected name: "auto" outside of any `use_implementation`, and while a graph is traced."""
    return "auto" if torch.compiler.is_compiling() else _chosen.get()


def resume_implementation(name: str) -> contextlib.AbstractContextManager[object]:
    """Return a block for a backward, which uses what `chosen_implementation` returned in the forward."""
    if torch.compiler.is_compiling() or name == _chosen.get():
        return _NO_BLOCK
    return use_implementation(name)


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return a block without automatic casts to half precision, including in a backward.

    Programs that torch 2.4 to 2.6 export have no such block, unless they are exported under automatic casts.
    """
    if not torch.compiler.is_compiling():
        # The questions take a tenth of the time that the block takes.
        available = torch.amp.is_autocast_available(device.type)
        casts = available and torch.is_autocast_enabled(device.type)
        return torch.autocast(device.type, enabled=False) if casts else _NO_BLOCK
    if exports_without_blocks() and not torch.is_autocast_enabled(device.type):
        return _NO_BLOCK
    # Before torch 2.6, graphs cannot ask whether a device has automatic casts.
    return torch.autocast(device.type, enabled=False)


def on_device_of(tensor: Tensor) -> contextlib.AbstractContextManager[object]:
    """Return a block whose launches of kernels go to a tensor's device."""
    index = tensor.get_device()  # −1 on a CPU
    if index < 0 or index == torch.cuda.current_device():
        return _NO_BLOCK
    block: contextlib.AbstractContextManager[object] = torch.cuda.device(index)
    return block


def _carried(value: Any, device: torch.device) -> Any:
    """Return arguments or results with their tensors on a device."""
    return tree_map_only(Tensor, lambda tensor: tensor.to(device), value)


@functools.cache
def warn_once(message: str) -> None:
    """Emit a RuntimeWarning, once for each message."""
    warnings.warn(message, RuntimeWarning, stacklevel=2)


def _obstacle(name: str, tensor: Tensor) -> str:
    """Return why an implementation cannot run on this tensor's device; empty if it can."""
    if name == "compiled":
        on_cpu = tensor.device.type == "cpu"
        return _compiler_obstacle() if on_cpu else f"it runs on a CPU, and the tensors are on {tensor.device}"
    return triton_obstacle(tensor.device) if name == "triton" else ""


def _compiler_obstacle() -> str:
    from quantizers.kernels.common.compiled.library import CompilationError, library

    try:
        library()
    except CompilationError as error:
        return str(error)
    return ""


def triton_obstacle(device: torch.device) -> str:
    """Return why Triton's kernels cannot run on a device; empty if they can.

    The type of an AMD GPU is "cuda", too: ask here, not for the type.
    """
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    if os.environ.get("TRITON_INTERPRET") == "1":
        return interpreter_obstacle()
    if device.type != "cuda":
        return f"it needs a CUDA device (or TRITON_INTERPRET=1), and the tensors are on {device}"
    return _gpu_obstacle(device)


def interpreter_obstacle() -> str:
    """Return why Triton's interpreter cannot run kernels here; empty if it can."""
    import numpy
    import triton

    if reason := old_triton_obstacle():
        return reason
    is_old, is_new = _version(triton.__version__) < (3, 7), _version(numpy.__version__) >= (2, 4)
    if is_old and is_new:
        return (
            f"the interpreter of triton {triton.__version__} does not work with numpy {numpy.__version__}; "
            "it needs triton 3.7 or newer, or numpy older than 2.4"
        )
    return ""


def old_triton_obstacle() -> str:
    """Return why the installed Triton can neither compile nor interpret the kernels; empty if it can."""
    import triton

    if _version(triton.__version__) >= SMALLEST_TRITON:
        return ""
    needed = ".".join(map(str, SMALLEST_TRITON))
    return f"it needs triton {needed} or newer, and {triton.__version__} is installed"


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(".")[:2])


@functools.cache
def _gpu_obstacle(device: torch.device) -> str:
    """Return why the kernels cannot run on a GPU; empty if they can."""
    if torch.version.hip is not None:
        return (
            "its kernels are written for NVIDIA's GPUs (tf32x3 products, and a bound on the errors of their "
            "matrix units), and this PyTorch is built for ROCm"
        )
    if reason := old_triton_obstacle():
        return reason
    capability = torch.cuda.get_device_capability(device)
    if capability < SMALLEST_CAPABILITY:
        needed, found = (".".join(map(str, version)) for version in (SMALLEST_CAPABILITY, capability))
        return (
            f"it needs a GPU of compute capability {needed} or newer (tf32 and bfloat16), and {device} has {found}"
        )
    return ""
