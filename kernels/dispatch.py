"""Selects the implementation that runs an operation.

- `reference`: the specification, in plain PyTorch; any device with float64.
- `blocked`: a faster nearest-code search in plain PyTorch; every other operation uses the reference.
- `compiled`: C++ for a CPU, compiled on first use.
- `triton`: kernels for a GPU.

By default (`auto`), an operation uses the fastest implementation for its tensors' device. An implementation
requested by name runs or raises an error; it never falls back to another. Operations that have only a reference
implementation (`UNIVERSAL`) use it under every name, and are counted as such.
"""

import contextlib
import functools
import importlib
import importlib.util
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

IMPLEMENTATIONS = ("auto", "reference", "blocked", "compiled", "triton")
MODULES = {  # the module that implements an operation, in each implementation's package
    "nearest_code": "nearest",
    "nearest_lookup": "nearest",
    "lookup_vector_gradient": "nearest",
    "lookup_codebook_gradient": "nearest",
    "highest_score": "nearest",
    "code_sums": "sums",
    "ema_code_sums": "sums",
    "rotate_grad": "rotation",
    "round_levels": "levels",
    "round_levels_backward": "levels",
    "soft_codes": "soft",
    "soft_codes_backward": "soft",
    "sinkhorn_potentials": "transport",
}
UNIVERSAL = ("sinkhorn_potentials",)
BLOCKED = ("nearest_code", "nearest_lookup")
# Operations whose Triton kernels are in a module of their own.
TRITON_MODULES = {
    "lookup_vector_gradient": "lookup_gradient",
    "lookup_codebook_gradient": "lookup_gradient",
    "highest_score": "highest",
    "soft_codes_backward": "soft_backward",
}

RunCounts = Counter[tuple[str, str]]
_chosen: ContextVar[str] = ContextVar("chosen", default="auto")
_records: ContextVar[tuple[RunCounts, ...]] = ContextVar("records", default=())


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
    return contextlib.nullcontext() if torch.compiler.is_compiling() else use_implementation(name)


def run(operation: str, *arguments: Any) -> Any:
    """Run an operation and return its result. The first tensor argument determines the device."""
    tensor = next(argument for argument in arguments if isinstance(argument, Tensor))
    name = _chosen.get()
    if name == "auto":
        name = _fastest(operation, tensor)
    elif reason := _obstacle(name, tensor):
        raise RuntimeError(f"implementation {name!r} cannot run {operation}: {reason}")
    if operation in UNIVERSAL or (name == "blocked" and operation not in BLOCKED):
        name = "reference"
    for record in _records.get():
        record[operation, name] += 1
    function = _function(name, operation)
    with without_autocast(tensor.device):
        if name != "triton":
            return function(*arguments)
        # A kernel is launched on the current device, which may differ from its tensors' device.
        with torch.cuda.device_of(tensor):  # type: ignore[no-untyped-call]
            return function(*arguments)


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return a block without automatic casts to half precision, including in a backward."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return contextlib.nullcontext()


def _fastest(operation: str, tensor: Tensor) -> str:
    fastest = {"cpu": "compiled", "cuda": "triton"}.get(tensor.device.type)
    if fastest:
        reason = _obstacle(fastest, tensor)
        if not reason:
            return fastest
        warn_once(f"{reason}\nSlower functions in plain PyTorch are used instead.")
    return "blocked" if operation in BLOCKED else "reference"


@functools.cache
def warn_once(message: str) -> None:
    """Emit a RuntimeWarning, once for each message."""
    warnings.warn(message, RuntimeWarning, stacklevel=2)


def _obstacle(name: str, tensor: Tensor) -> str:
    """Return why an implementation cannot run on this tensor's device; empty if it can."""
    device = tensor.device.type
    if name == "compiled":
        return (
            f"it runs on a CPU, and the tensors are on {tensor.device}"
            if device != "cpu"
            else _compiler_obstacle()
        )
    if name == "triton":
        if importlib.util.find_spec("triton") is None:
            return "the package triton is not installed"
        if device != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
            return f"it needs a CUDA device (or TRITON_INTERPRET=1), and the tensors are on {tensor.device}"
    return ""


def _compiler_obstacle() -> str:
    from quantizers.kernels.compiled.library import CompilationError, library

    try:
        library()
    except CompilationError as error:
        return str(error)
    return ""


@functools.cache
def _function(name: str, operation: str) -> Callable[..., Any]:
    own = TRITON_MODULES.get(operation) if name == "triton" else None
    module = importlib.import_module(f"quantizers.kernels.{name}.{own or MODULES[operation]}")
    function: Callable[..., Any] = getattr(module, operation)
    return function
