"""Calls that are recorded once and then repeated without the Python code between their launches.

A launcher reads shapes, chooses tiles and grids, allocates, and hands kernels to Triton, which finds the compiled
one by all of their arguments. On the host this takes longer than small kernels take on the device. All of it
depends on nothing but the shapes, strides, dtypes and alignment of the tensors, the other arguments, and settings.
So a function whose calls repeat has one of them recorded as a program (program.py), which allocates memory,
launches compiled kernels and calls PyTorch's operations. Later calls run the program.

    @replayed(settings)
    def nearest_code(x, codebook): ...

    @launched
    @triton.jit
    def _search(...): ...

The rules are those of CUDA graphs: the function reads no value from the device, and has no effects but launches
of `launched` kernels, allocations and PyTorch's operations. A call is not recorded, and runs as it is each time,
if it uses a tensor that is neither an argument nor made in it, reads a value, or allocates so much that the device
is busy for longer than the host.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, Generic, ParamSpec, TypeVar
from weakref import WeakSet

import torch
from torch import Tensor

from quantizers.kernels.common.triton.recording import CONSTANTS, Replay, is_recording, record

FIRST = 4  # calls of a kind run as they are: to record one takes as long as a dozen save
KEPT = 256  # kinds of calls that a function remembers; of more, the more recent half
ALIGNMENT = 16  # bytes; Triton compiles a kernel for pointers that are divisible by it, or not

_NO_BLOCK = contextlib.nullcontext()
_PLAIN = (Tensor, torch.nn.Parameter)

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_switched_off = False
_all: WeakSet["Replayed[..., Any]"] = WeakSet()


class _Met:
    """A kind of calls that a function has met."""

    __slots__ = ("calls", "last", "replay")

    def __init__(self) -> None:
        self.calls = 0
        self.last = 0  # when this kind was met last, in calls of the function
        self.replay: Replay | None = None  # what repeats a call, or the function itself if nothing can


class Replayed(Generic[Arguments, Result]):
    """A function that launches kernels. After FIRST calls of a kind, one is recorded, and from then on repeated.

    It computes without gradients. Two calls are of one kind if a program of the one is a program of the other.
    """

    def __init__(self, function: Callable[Arguments, Result], settings: Callable[[], Hashable] | None) -> None:
        functools.update_wrapper(self, function)
        self._function = torch.no_grad()(function)
        self._settings = settings
        self._kinds: dict[Hashable, _Met] = {}
        self._calls = 0
        self._lock = threading.Lock()  # a backward runs in another thread
        _all.add(self)

    def __call__(self, *arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        kind = None if options or _is_watched() else _kind_of(arguments)
        if kind is None:
            return self._function(*arguments, **options)
        if self._settings is not None:
            kind = kind, self._settings()
        met = self._kinds.get(kind) or self._meet(kind)
        self._calls += 1
        met.last = self._calls
        if met.replay is not None:
            with torch.no_grad() if torch.is_grad_enabled() else _NO_BLOCK:
                result: Result = met.replay(*arguments)
            return result
        met.calls += 1
        if met.calls <= FIRST:
            return self._function(*arguments, **options)
        result, replay = record(self._function, arguments)
        met.replay = replay or self._function
        return result

    def _meet(self, kind: Hashable) -> _Met:
        """Remember a kind, and forget those that were not met for the longest time if there are too many."""
        with self._lock:
            if len(self._kinds) >= KEPT:
                oldest_first = sorted(self._kinds, key=lambda each: self._kinds[each].last)
                for each in oldest_first[: -(KEPT // 2)]:
                    del self._kinds[each]
            return self._kinds.setdefault(kind, _Met())

    def forget(self) -> None:
        """Forget all calls."""
        with self._lock:
            self._kinds.clear()


def replayed(
    settings: Callable[[], Hashable] | None = None,
) -> Callable[[Callable[Arguments, Result]], Replayed[Arguments, Result]]:
    """Decorate a function that launches kernels: see `Replayed`.

    Args:
        settings: returns everything beside its arguments that the launches depend on.
    """
    return lambda function: Replayed(function, settings)


def forget() -> None:
    """Forget the calls of all functions, for instance after a change of the constants that they read."""
    for each in list(_all):
        each.forget()


@contextlib.contextmanager
def without_replay() -> Iterator[None]:
    """In the block, in all threads, functions run themselves: to debug a launcher, or to measure its time."""
    global _switched_off
    before, _switched_off = _switched_off, True
    try:
        yield
    finally:
        _switched_off = before


def _is_watched() -> bool:
    """Whether calls are already recorded, or somebody wants to see what they do."""
    return _switched_off or is_recording() or torch._C._len_torch_dispatch_stack() > 0


def _kind_of(arguments: Sequence[Any]) -> Hashable | None:
    """Return what calls have in common that can share a program; None if these arguments cannot be recorded."""
    kind: list[Any] = []
    for argument in arguments:
        if type(argument) in _PLAIN:
            kind += (argument.dtype, argument.shape, argument.stride(), argument.device)
            kind.append(argument.data_ptr() % ALIGNMENT)
        elif type(argument) in CONSTANTS:
            kind += (type(argument), argument)
        else:
            return None
    return tuple(kind)
