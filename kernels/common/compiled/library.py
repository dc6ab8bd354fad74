"""The C++ sources of kernels/ as one shared library: out of the wheel, or compiled for this machine on first use.

A wheel for one platform brings a library for each set of vector instructions. Otherwise the library is compiled
once, and kept in a folder of cache.py. The name of its file holds a digest of the sources, and in a cache also one
of the compiler, so that changed sources or another compiler make another library. If there is no compiler (any
more, as in the second stage of a container's build), any library of the same sources serves. Set CXX to choose a
compiler, which takes precedence over the wheel's library.

Messages go to the logger "quantizers".
"""

import ctypes
import functools
import logging
import os
import platform
import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch

from quantizers.kernels.common.compiled import cache, compiler, openmp
from quantizers.kernels.common.compiled.build import (
    INSTRUCTIONS,
    PREBUILT,
    CompilationError,
    compile_library,
    is_complete,
    library_name,
)

__all__ = ["CompilationError", "forget", "library", "machine_instructions"]

logger = logging.getLogger("quantizers")


def library() -> ctypes.CDLL:
    """Return the library for this machine's vector instructions.

    Raises: CompilationError, again and immediately on each call after the first failure.
    """
    outcome = _try_library(machine_instructions())
    if isinstance(outcome, CompilationError):
        raise outcome
    return outcome


def forget() -> None:
    """Look for the compiler and the library again at the next call."""
    _try_library.cache_clear()


def machine_instructions() -> str:
    """Return the key of INSTRUCTIONS for this machine, according to torch (which respects ATEN_CPU_CAPABILITY)."""
    capability = torch.backends.cpu.get_cpu_capability()
    return capability if capability in INSTRUCTIONS else "portable"


@functools.cache
def _try_library(instructions: str) -> "ctypes.CDLL | CompilationError":
    try:
        found = _load(library_name(platform.machine(), instructions), instructions)
    except (OSError, CompilationError) as error:
        return CompilationError(f"the compiled kernels are not available: {error}")
    openmp.connect(found)
    return found


def _load(name: str, instructions: str) -> ctypes.CDLL:
    prebuilt = [PREBUILT / f"{name}.so"]
    if not compiler.is_chosen() and (found := _open_first(prebuilt)):
        return found
    try:
        command = compiler.find_compiler()
        file = f"{name}-{compiler.identify(command)}.so"
    except compiler.NoCompiler as error:
        if found := _open_first([*_kept(name), *(prebuilt if compiler.is_chosen() else [])]):
            logger.info("loaded %s: %s", found._name, error)
            return found
        raise
    return _open_first(folder / file for folder in cache.folders()) or _compiled(command, instructions, file)


def _kept(name: str) -> list[Path]:
    """Return the libraries of the same sources that any compiler has made."""
    return [path for folder in cache.folders() for path in sorted(folder.glob(f"{name}-*.so"))]


def _open_first(paths: Iterable[Path]) -> ctypes.CDLL | None:
    """Load the first library that exists and can be loaded. The others are logged with the reason."""
    for path in paths:
        if os.path.exists(path):
            try:
                return _open(path)
            except OSError as error:
                logger.warning("skipped the compiled kernels in %s: %s", path, error)
    return None


def _open(path: Path) -> ctypes.CDLL:
    """Load a library. Raises: OSError if it is truncated, or made for another system."""
    if not is_complete(path):
        raise OSError("the file is not complete")
    return ctypes.CDLL(str(path))


def _compiled(command: list[str], instructions: str, file: str) -> ctypes.CDLL:
    if (folder := cache.cache_folder()) is None:
        return _compiled_for_this_process(command, instructions, file)
    with cache.locked(folder):
        if found := _open_first([folder / file]):  # another process has compiled it meanwhile
            return found
        logger.warning("quantizers-torch compiles its C++ kernels, once, and keeps them in %s", folder)
        compile_library(command, instructions, folder / file)
        return _open(folder / file)


def _compiled_for_this_process(command: list[str], instructions: str, file: str) -> ctypes.CDLL:
    logger.warning(
        "quantizers-torch compiles its C++ kernels, for this process alone: no folder can keep them (set "
        "QUANTIZERS_CACHE to a folder with room that can be written)"
    )
    # Once loaded, the file may be deleted; on Windows it may not.
    with tempfile.TemporaryDirectory(prefix="quantizers-", ignore_cleanup_errors=True) as temporary:
        compile_library(command, instructions, Path(temporary) / file)
        return _open(Path(temporary) / file)
