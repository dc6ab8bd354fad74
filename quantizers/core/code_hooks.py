"""Hooks that see the indices of a quantizer."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn
from typing_extensions import Self


class ForwardEvent(NamedTuple):
    """What a code hook is given after a forward or an `encode`."""

    x: Tensor
    """The input, as it was passed."""
    mask: Tensor | None
    """The mask, as it was passed."""
    indices: Tensor
    """The indices that are returned."""
    by_forward: bool
    """True after `forward` (and `ResidualQuantizer.forward_stages`), False after `encode`."""
    sizes: Sequence[Any] | None = None
    """The sizes of all scales, if a quantizer of maps was called with them."""

    def detached(self) -> "ForwardEvent":
        """Return the event without the history of x. Before torch 2.7, graphs cannot contain `_replace`."""
        return ForwardEvent(self.x.detach(), self.mask, self.indices, self.by_forward, self.sizes)


CodeHook = Callable[[Any, ForwardEvent], None]
"""Called as hook(quantizer, event)."""


class CodeHookHandle:
    """Removes the hook that it was returned for; also usable in a `with` statement."""

    def __init__(self, quantizer: "CodeHooks", hook: CodeHook) -> None:
        self._quantizer = quantizer
        self._hook = hook

    def remove(self) -> None:
        """Stop calling the hook. Removing it twice does nothing."""
        self._quantizer._remove_code_hook(self)

    def __call__(self, quantizer: Any, event: ForwardEvent) -> None:
        self._hook(quantizer, event)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


class CodeHooks(nn.Module):
    """A module whose forward and `encode` report their indices to hooks."""

    _code_hooks: tuple[CodeHookHandle, ...] = ()

    def register_code_hook(self, hook: CodeHook) -> CodeHookHandle:
        """Call `hook(self, event)` after each forward and each `encode` of this quantizer.

        PyTorch's `register_forward_hook` is not enough to see every index: a compiled model does not call hooks
        that are registered after it was compiled, and `encode` is no call of the module. A code hook is called in
        both cases. The second forward of activation checkpointing calls it as well. Copies and pickles carry no
        hooks, and a quantizer inside another one calls none: the outermost quantizer reports.

        Returns: a handle; `handle.remove()` removes the hook.
        """
        handle = CodeHookHandle(self, hook)
        self._code_hooks = (*self._code_hooks, handle)
        return handle

    def _remove_code_hook(self, handle: CodeHookHandle) -> None:
        others = tuple(other for other in self._code_hooks if other is not handle)
        # Without the attribute, a quantizer compiles to the same graph as one that never had a hook.
        self.__dict__.pop("_code_hooks", None)
        if others:
            self._code_hooks = others

    def _notify_code_hooks(self, event: ForwardEvent) -> Tensor:
        """Call the hooks. Returns: the indices of the event."""
        for hook in self._code_hooks:
            hook(self, event)
        return event.indices

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]
        return {name: value for name, value in state.items() if name != "_code_hooks"}


@contextmanager
def code_hooks_paused(modules: Collection[CodeHooks]) -> Iterator[None]:
    """Call none of the hooks that these modules have now, until the block ends."""
    paused = [(module, module._code_hooks) for module in modules if module._code_hooks]
    for module, _ in paused:
        del module._code_hooks
    try:
        yield
    finally:
        for module, hooks in paused:
            module._code_hooks = (*hooks, *module._code_hooks)
