"""Every implementation of the operations that this machine can run, as a context to test under."""

import contextlib
from collections.abc import Iterator

import pytest

from quantizers.kernels.common.compiled import library
from quantizers.kernels.common.dispatch import use_implementation
from quantizers.kernels.nearest.pruning import use_pruning

RUNNABLE = {"AVX512": ("AVX512", "AVX2", "portable"), "AVX2": ("AVX2", "portable"), "portable": ("portable",)}
COMPILED = tuple(f"compiled:{name}" for name in RUNNABLE[library.machine_instructions()])
IMPLEMENTATIONS = ("reference", "blocked", *COMPILED)
PRUNED = tuple(f"{name}:always" for name in COMPILED)


@contextlib.contextmanager
def under(name: str) -> Iterator[None]:
    """Run a block under an implementation; "compiled:AVX2" is the compiled one for those vector instructions, and
    "compiled:AVX2:always" leaves codes out of every search.
    """
    implementation, instructions, pruning = (*name.split(":"), "", "")[:3]
    with pytest.MonkeyPatch.context() as patch, use_implementation(implementation), use_pruning(pruning or "auto"):
        if instructions:
            patch.setattr(library, "machine_instructions", lambda: instructions)
        if implementation == "compiled":
            try:
                library.library()
            except library.CompilationError as error:
                pytest.skip(str(error))
        yield
