"""What differs between the versions of Python and PyTorch that the library supports.

Each entry names the version from which on it is no longer needed.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import torch


def infer_schema(function: Callable[..., Any], mutates_args: tuple[str, ...]) -> str:
    """Return the schema of an operation from its function's annotations. Public since torch 2.5."""
    if hasattr(torch.library, "infer_schema"):
        return torch.library.infer_schema(function, mutates_args=mutates_args)
    from torch._library import infer_schema as module

    return module.infer_schema(function, mutates_args)  # type: ignore[call-arg]


def register_vmap(name: str, rule: Callable[..., Any], library: torch.library.Library) -> None:
    """Register a rule of `torch.vmap` for an operation. Before torch 2.5, such an operation cannot be mapped."""
    if hasattr(torch.library, "register_vmap"):
        torch.library.register_vmap(name, rule, lib=library)


def is_exporting() -> bool:
    """Whether `torch.export` is tracing. Before torch 2.7, any tracing counts as an export."""
    if hasattr(torch.compiler, "is_exporting"):
        return torch.compiler.is_exporting()
    return torch.compiler.is_compiling()


def without_compilation() -> contextlib.AbstractContextManager[object]:
    """Return a block in which compiled modules run eagerly. Before torch 2.6, they run compiled."""
    if hasattr(torch.compiler, "set_stance"):
        eager: contextlib.AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
        return eager
    return contextlib.nullcontext()


def add_note(error: Exception, note: str) -> None:
    """Add a note to an error. Before Python 3.11, the note is appended to the message."""
    if hasattr(error, "add_note"):
        error.add_note(note)
    elif error.args and isinstance(error.args[0], str):
        error.args = (f"{error.args[0]}\n{note}", *error.args[1:])
