"""Which Triton kernels a block of code launches first, and how long each took to compile."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import triton
from triton.runtime.interpreter import InterpretedFunction

OF_INDUCTOR = "triton_"  # the start of the names that torch.compile gives its kernels


class Compiled(dict[str, dict[str, float]]):
    """By kernel: how many variants were loaded for the first time in this process, how many of them were compiled
    and not found in the cache, and the seconds of these."""

    def add(self, name: str, *, compiled: bool = False, seconds: float = 0.0) -> None:
        numbers = self.setdefault(name, {"variants": 0, "compiled": 0, "seconds": 0.0})
        numbers["variants"] += 1
        numbers["compiled"] += compiled
        numbers["seconds"] += seconds


@contextmanager
def watch_compiler() -> Iterator[Compiled]:
    """Record the kernels that are compiled or loaded inside the block. Kernels of torch.compile do not count."""
    compiled = Compiled()

    def listener(*, src: Any, times: Any, cache_hit: bool, **_: Any) -> None:
        if not src.name.startswith(OF_INDUCTOR):
            compiled.add(src.name, compiled=not cache_hit, seconds=0.0 if cache_hit else times.total / 1e6)

    before = triton.knobs.compilation.listener
    triton.knobs.compilation.listener = listener
    try:
        yield compiled
    finally:
        triton.knobs.compilation.listener = before


@contextmanager
def watch_interpreter() -> Iterator[Compiled]:
    """Record the kernels that Triton's interpreter runs inside the block, which compiles nothing."""
    interpreted = Compiled()
    run = InterpretedFunction.run

    def recorded(self: Any, *arguments: Any, **options: Any) -> Any:
        if self.__name__ not in interpreted:
            interpreted.add(self.__name__)
        return run(self, *arguments, **options)

    InterpretedFunction.run = recorded
    try:
        yield interpreted
    finally:
        InterpretedFunction.run = run
