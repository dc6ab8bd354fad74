"""The OpenMP runtime that PyTorch uses, for the compiled library, which brings none of its own.

Two runtimes in one process compete for the cores.
"""

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

# The functions of threads.cpp, and what each is given: the interfaces of GNU's runtime and of LLVM's.
INTERFACES = {
    "quantizers_use_gomp": ("GOMP_parallel", "omp_get_num_threads"),
    "quantizers_use_kmp": (
        "__kmpc_fork_call", "__kmpc_global_thread_num", "__kmpc_push_num_threads", "omp_get_num_threads",
    ),
}  # fmt: skip


def connect(library: ctypes.CDLL) -> None:
    """Let a library run its threads in PyTorch's OpenMP runtime.

    A library that is not connected starts threads of its own.
    """
    for runtime in _runtimes():
        for function, names in INTERFACES.items():
            if all(hasattr(runtime, name) for name in names):
                addresses = [ctypes.cast(getattr(runtime, name), ctypes.c_void_p) for name in names]
                getattr(library, function)(*addresses)
                return


def _runtimes() -> Iterator[ctypes.CDLL]:
    """Yield the libraries, loaded already, in which the runtime's functions may be found."""
    yield ctypes.CDLL(torch._C.__file__)  # a symbol is looked up in the library's dependencies, too
    if sys.platform == "win32":  # where it is not
        for path in sorted((Path(torch.__file__).parent / "lib").glob("lib*omp*.dll")):
            yield ctypes.CDLL(str(path))
