"""Records what a call does: allocations, launches of kernels, and PyTorch's operations; see replay.py."""

import functools
import inspect
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from triton.runtime.jit import JITFunction, KernelInterface

from quantizers.kernels.common.triton.program import Program

LARGEST = 200  # statements of a program
MOST_MEMORY = 2**28  # bytes that a recorded call allocates; a GPU takes tens of microseconds to write as many
CONSTANTS = (int, float, bool, str, type(None), torch.dtype)
"""The types of values that are the same in each run, beside tensors."""

_OPTIONS = (torch.device, torch.layout, torch.memory_format)  # of PyTorch's operations
_ALLOCATIONS = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")

Replay = Callable[..., Any]


class _Active(threading.local):
    recorder: "_Recorder | None" = None


_active = _Active()


class Launched(KernelInterface):  # type: ignore[misc]
    """A kernel of Triton whose launches are recorded."""

    def __init__(self, fn: Any) -> None:
        functools.update_wrapper(self, fn, updated=())
        self.fn = fn
        self.arg_names = fn.arg_names

    def run(self, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        recorder = _active.recorder
        if recorder is None:
            return self.fn.run(*arguments, grid=grid, warmup=warmup, **options)
        with _disable_current_modes():
            compiled = self.fn.run(*arguments, grid=grid, warmup=warmup, **options)
        recorder.launch(self.fn, compiled, grid, arguments, options)
        return compiled


def launched(fn: Any) -> Launched:
    """Decorate a kernel that a `replayed` function launches."""
    return Launched(fn)


def is_recording() -> bool:
    """Whether a call is being recorded in this thread."""
    return _active.recorder is not None


def record(function: Callable[..., Any], arguments: Sequence[Any]) -> tuple[Any, Replay | None]:
    """Return the result of a call, and a function that repeats it, if there can be one."""
    tensors = [argument for argument in arguments if isinstance(argument, Tensor)]
    if len(set(map(id, tensors))) < len(tensors):  # a program could not tell them apart
        return function(*arguments), None
    recorder = _Recorder(arguments)
    _active.recorder = recorder
    try:
        with recorder:
            result = function(*arguments)
    finally:
        _active.recorder = None
    return result, recorder.replay(result)


class _Recorder(TorchDispatchMode):
    """Records what a call with these arguments does."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # otherwise PyTorch imports its compiler, which takes a second or more

    def __init__(self, arguments: Sequence[Any]) -> None:
        super().__init__()
        self._program = Program(len(arguments))
        self._names: dict[int, str] = {}  # by the id of a tensor
        self._alive: list[Tensor] = []  # so that no two of them have one id
        self._memory = 0
        self._fits = True
        for argument, name in zip(arguments, self._program.parameters, strict=True):
            if isinstance(argument, Tensor):
                self._name(argument, name)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if self._fits:
            self._operation(func, args, kwargs or {}, result)
        return result

    def _operation(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> None:
        if func.is_view and _is_same(result, args[0]):
            self._name(result, self._known(args[0]))
            return
        several = isinstance(result, (tuple, list))
        results = result if several else (result,)
        # If there is another value than a tensor, the rest of the call may depend on it.
        self._require(all(isinstance(each, Tensor) for each in results) and len(self._program) < LARGEST)
        if self._fits and not func.is_view:
            self._memory += sum(each.nbytes for each in results)
            self._require(self._memory <= MOST_MEMORY)
        call, arguments, options = func, args, kwargs
        if func.overloadpacket.__name__ in _ALLOCATIONS:
            call, arguments = torch.empty_strided, (tuple(result.shape), result.stride())
            options = {"dtype": result.dtype, "device": result.device}
        names = self._program.call(
            call,
            [self._known(each) for each in arguments],
            {name: self._known(each) for name, each in options.items()},
            results=len(results) if several else None,
            pure=func.is_view,
        )
        if self._fits:
            for each, name in zip(results, names, strict=True):
                self._name(each, name)

    def launch(self, fn: Any, compiled: Any, grid: Any, arguments: Sequence[Any], options: dict[str, Any]) -> None:
        """Record a launch of a kernel."""
        self._require(compiled is not None or not isinstance(fn, JITFunction))  # as where a test replaces `run`
        self._require(isinstance(grid, tuple))
        if self._fits:
            named = {name: value for name, value in options.items() if name in fn.arg_names}
            bound = inspect.signature(fn.fn).bind(*arguments, **named)
            bound.apply_defaults()
            self._program.call(_run(fn, compiled, grid), [self._known(each) for each in bound.args])

    def replay(self, result: Any) -> Replay | None:
        """Return the function that repeats the call; None if none would."""
        output = self._known(result)
        return self._program.function(output) if self._fits else None

    def _require(self, condition: bool) -> None:
        """Give up, and let go of all tensors, unless a condition is met."""
        if not condition:
            self._fits = False
            self._names.clear()
            self._alive.clear()

    def _name(self, tensor: Tensor, name: str) -> None:
        self._names[id(tensor)] = name
        self._alive.append(tensor)

    def _known(self, value: Any) -> str:
        """Return an expression for a value: a tensor must be an argument of the call or made in it."""
        if isinstance(value, Tensor):
            self._require(id(value) in self._names)
            return self._names.get(id(value), "")
        if isinstance(value, (tuple, list)):
            items = "".join(f"{self._known(each)}, " for each in value)
            kind = "" if type(value) in (tuple, list) else self._program.constant(type(value))
            return f"[{items}]" if type(value) is list else f"{kind}({items})"
        self._require(type(value) in CONSTANTS or isinstance(value, _OPTIONS))
        return self._program.constant(value)


def _run(fn: Any, compiled: Any, grid: tuple[int, ...]) -> Callable[..., Any]:
    """Return a function of a kernel's arguments that launches it."""
    if isinstance(fn, JITFunction):
        run: Callable[..., Any] = compiled[(*grid, 1, 1)[:3]]
        return run

    def interpret(*arguments: Any) -> None:
        fn.run(*arguments, grid=grid, warmup=False)

    return interpret


def _is_same(view: Any, of: Any) -> bool:
    """Whether a view shows all of a tensor as it is."""
    if not isinstance(view, Tensor) or not isinstance(of, Tensor) or view.dtype != of.dtype:
        return False
    return (view.shape, view.stride(), view.storage_offset()) == (of.shape, of.stride(), of.storage_offset())
