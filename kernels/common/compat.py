"""What differs between the versions of Python and PyTorch that the library supports.

Each entry names the version from which on it is no longer needed.
"""

import contextlib
import inspect
import typing
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

_HIDES_ATTRIBUTES = torch.__version__ < "2.13"
_SAVES_BLOCKS = torch.__version__ >= "2.7"
_SAVES_NAN = not "2.7" <= torch.__version__ < "2.9"


def infer_schema(function: Callable[..., Any]) -> str:
    """Return the schema of an operation from its function's annotations.

    Before torch 2.7, PyTorch reads `typing.Sequence` only. Its function is public since torch 2.5.
    """
    signature = inspect.signature(function)
    parameters = [item.replace(annotation=_of_typing(item.annotation)) for item in signature.parameters.values()]

    def annotated() -> None:
        pass

    annotated.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    if hasattr(torch.library, "infer_schema"):
        return torch.library.infer_schema(annotated, mutates_args=())
    from torch._library import infer_schema as module

    return module.infer_schema(annotated, ())  # type: ignore[call-arg]


def _of_typing(annotation: Any) -> Any:
    if typing.get_origin(annotation) not in (list, Sequence):
        return annotation
    return typing.Sequence[typing.get_args(annotation)]  # type: ignore[misc]


def register_autograd(
    name: str, backward: Callable[..., Any], setup_context: Callable[..., Any], library: torch.library.Library
) -> None:
    """Register the derivative of an operation.

    torch 2.4 calls an `autograd.Function` also where no tensor requires a gradient, and `torch.func` refuses it.
    """
    if torch.__version__ >= "2.5":
        torch.library.register_autograd(name, backward, setup_context=setup_context, lib=library)
    else:
        kernel = _differentiable(name, backward, setup_context)
        library.impl(name.rpartition(":")[2], kernel, "Autograd", with_keyset=True)  # type: ignore[no-untyped-call]


def _differentiable(
    name: str, backward: Callable[..., Any], setup_context: Callable[..., Any]
) -> Callable[..., Any]:
    from torch._library import autograd
    from torch.utils._pytree import tree_leaves

    operation = _packet(name).default
    differentiable: Any = autograd.make_autograd_impl(operation, autograd.Info(backward, setup_context))

    def kernel(keys: Any, *arguments: Any) -> Any:
        leaves = tree_leaves(arguments)
        if torch.is_grad_enabled() and any(getattr(leaf, "requires_grad", False) for leaf in leaves):
            return differentiable(keys, *arguments)
        with torch._C._AutoDispatchBelowAutograd():
            return operation.redispatch(keys & torch._C._after_autograd_keyset, *arguments)

    return kernel


def register_vmap(name: str, rule: Callable[..., Any], library: torch.library.Library) -> None:
    """Register a rule of `torch.vmap` for an operation. PyTorch has a function for it since torch 2.5."""
    if hasattr(torch.library, "register_vmap"):
        torch.library.register_vmap(name, rule, lib=library)
    else:
        library.impl(name.rpartition(":")[2], _mapped(name, rule), "FuncTorchBatched")  # type: ignore[no-untyped-call]


def _mapped(name: str, rule: Callable[..., Any]) -> Callable[..., Any]:
    from torch._functorch.autograd_function import VmapInfo
    from torch._functorch.pyfunctorch import retrieve_current_functorch_interpreter
    from torch._functorch.vmap import unwrap_batched, wrap_batched
    from torch.utils._pytree import tree_leaves

    operation = _packet(name)
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.FuncTorchBatched)

    def kernel(*arguments: Any) -> Any:
        interpreter: Any = retrieve_current_functorch_interpreter()
        plain, in_dims = unwrap_batched(arguments, interpreter.level())
        with torch._C._ExcludeDispatchKeyGuard(keys):
            if all(dim is None for dim in tree_leaves(in_dims)):
                return operation(*arguments)
            info = VmapInfo(interpreter.batch_size(), interpreter.randomness())
            outputs, out_dims = rule(info, in_dims, *plain)
        return wrap_batched(outputs, out_dims, interpreter.level())

    return kernel


def _packet(name: str) -> Any:
    """Return an operation with all of its overloads."""
    namespace, _, operation = name.partition("::")
    return getattr(getattr(torch.ops, namespace), operation)


def plain_attributes(module: torch.nn.Module) -> dict[str, Any]:
    """Return a module's attributes except parameters, buffers and modules.

    Graphs of torch 2.4 to 2.9 cannot trace them, and get none. torch 2.13 is the next that was tried.
    """
    return {} if _HIDES_ATTRIBUTES and torch.compiler.is_compiling() else module.__dict__


def default_group() -> dist.ProcessGroup | None:
    """Return the default process group, of which compiled code then has a guard.

    Graphs of torch 2.4 to 2.8 take `dist.group.WORLD` for an object even if it is None. torch 2.13 is the next
    that was tried.
    """
    group: dist.ProcessGroup | None = dist.distributed_c10d._world.default_pg
    return group


def is_exporting() -> bool:
    """Whether `torch.export` is tracing.

    PyTorch has a function for it since torch 2.7, but in each compiled graph of torch 2.7 to 2.9 it returns True.
    torch 2.13 is the next that was tried.
    """
    if torch.__version__ >= "2.13":
        return torch.compiler.is_exporting()
    if hasattr(torch.compiler, "_is_exporting_flag"):
        exporting: bool = torch.compiler._is_exporting_flag
        return exporting
    if not torch.compiler.is_compiling():
        return False
    from torch.export import _trace  # here, since it imports PyTorch's compiler

    return _trace._EXPORT_MODULE_HIERARCHY is not None


def exports_without_blocks() -> bool:
    """Whether `torch.export` is tracing, and what it makes cannot be saved if a block of it, such as one without
    automatic casts, gets a size that is free. torch 2.7 and newer can save such blocks.
    """
    return not _SAVES_BLOCKS and is_exporting()


def nan(like: Tensor) -> float | Tensor:
    """Return NaN for `where`, whose result has the dtype of `like`.

    torch 2.7 and 2.8 cannot save an exported program that contains the number, so its graph computes it there.
    """
    return torch.nan if _SAVES_NAN or not is_exporting() else like.new_zeros(()) / 0


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
