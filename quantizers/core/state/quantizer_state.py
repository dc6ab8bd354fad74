"""The state of a quantizer: float32 whoever builds or casts it, and checked when a checkpoint is loaded."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from quantizers.core.state.half_state import is_half
from quantizers.core.state.index_format import NAME, Rule, as_bytes, difference
from quantizers.core.state.initialization import SelfInitialized


class QuantizerState(SelfInitialized):
    """Parameters and buffers in float32 or float64, all of them in the state dict.

    - A constructor draws in float32 where the default dtype has fewer bits, as in `from_pretrained(dtype=...)`.
    - `.half()`, `.bfloat16()` and the like leave the state in float32. A loader that sets parameters one by one
      may not; `train()` and `eval()` make the state float32 again.
    - What the indices mean is part of the state (see `index_format`): a checkpoint of other levels or of
      another distance, whose tensors have the same names and shapes, does not load.
    """

    renamed: ClassVar[Mapping[str, str]] = {}
    """What parameters and buffers are called in older checkpoints, and what today."""

    _dtype: torch.dtype
    """That of the state, also where there is none: float32 or float64."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__:
            cls.__init__ = _constructor(cls, cls.__init__)  # type: ignore[method-assign]

    def __init__(self) -> None:
        super().__init__()
        self._dtype = torch.get_default_dtype()
        self._step_tensors: dict[str, Tensor] = {}
        self.register_load_state_dict_post_hook(_widen_loaded)  # type: ignore[no-untyped-call]

    @property
    def _index_rule(self) -> Rule:
        """What says which code an index is, beside the tensors of the state: JSON values by name.

        Empty, the default, where the tensors say all of it.
        """
        return {}

    def _finish_construction(self) -> None:
        """What follows the outermost constructor."""
        _widen(self)
        if self._index_rule:
            self.register_buffer(NAME, as_bytes(self._index_rule))

    def _step_tensor(self, name: str, like: Tensor) -> Tensor:
        """A tensor of that name and of the form of `like`, zeros at first, which lives from forward to forward.

        No buffer: it means nothing once the step of training is over, and no checkpoint holds it.
        """
        held = self._step_tensors.get(name)
        if held is None or (held.shape, held.dtype, held.device) != (like.shape, like.dtype, like.device):
            held = self._step_tensors[name] = torch.zeros_like(like, requires_grad=False)
        return held

    @property
    def _device(self) -> torch.device:
        """Where the state is; the default device where there is none."""
        tensors = (*self.parameters(), *self.buffers())
        return tensors[0].device if tensors else torch.get_default_device()

    def train(self, mode: bool = True) -> Self:
        """As of any module; and half-precision state that a loader has put in is float32 again."""
        _widen(self)
        return super().train(mode)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        held = destination.get(prefix + NAME)
        if held is not None and not held.is_meta:  # made anew: the rule is Python's, whatever a loader filled in
            destination[prefix + NAME] = as_bytes(self._index_rule, held.device)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, metadata: Any, strict: bool, *lists: list[str]
    ) -> None:
        for old, new in self.renamed.items():
            if prefix + old in state_dict and prefix + new not in state_dict:
                state_dict[prefix + new] = state_dict.pop(prefix + old)
        if self._index_rule:
            state_dict = self._with_own_format(state_dict, prefix, lists[-1])
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, *lists)

    def initialize_missing(self) -> None:
        """See SelfInitialized. What the indices mean is written anew.

        Raises: ValueError for a checkpoint, read by another loader than `load_state_dict`, whose indices mean
            something else.
        """
        held = self._buffers.get(NAME)
        if held is not None and not held.is_meta:
            if getattr(held, "_is_hf_initialized", False) and (other := difference(held, self._index_rule)):
                raise ValueError(_of_other_codes(type(self).__name__, other))
            self._write_format()
            self._without_values -= {NAME}
        super().initialize_missing()

    def _with_own_format(self, state_dict: dict[str, Any], prefix: str, errors: list[str]) -> dict[str, Any]:
        """A checkpoint with this quantizer's rule for its indices; another one's is an error."""
        found = state_dict.get(prefix + NAME)
        if found is not None and (other := difference(found, self._index_rule)):
            errors.append(_of_other_codes(type(self).__name__, other, f" at {prefix.removesuffix('.')!r}"))
        own = self.get_buffer(NAME)
        return {**state_dict, prefix + NAME: as_bytes(self._index_rule, None if own.is_meta else own.device)}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """`.to`, `.half`, `.cuda` and the like: everything but a step below float32 is carried out.

        What is below already is moved as it is: DeepSpeed casts each parameter, moves the module, and lays all
        parameters into one buffer, which must have one dtype.
        """

        def at_least_float32(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            if moved.dtype != tensor.dtype and not tensor.is_floating_point():
                return tensor.to(moved.device)  # `.type` would make floating numbers of integers
            if is_half(moved) and moved.dtype != tensor.dtype:
                return tensor.to(moved.device, torch.promote_types(tensor.dtype, torch.float32))
            return moved

        self._dtype = at_least_float32(torch.empty(0, dtype=self._dtype, device="cpu")).dtype
        # Those on `meta` have no values to move, and no loader brings any: `_step_tensor` makes them anew.
        held = {name: tensor for name, tensor in self._step_tensors.items() if not tensor.is_meta}
        self._step_tensors = {name: at_least_float32(tensor) for name, tensor in held.items()}
        super()._apply(at_least_float32, recurse)
        self._write_format()
        return self

    def _write_format(self) -> None:
        """Make the buffer say what the rule is now: `to_empty` and loaders leave memory as it was found."""
        held = self._buffers.get(NAME)
        if held is None or held.is_meta:
            return
        own = as_bytes(self._index_rule, held.device)
        if own.shape == held.shape:
            held.copy_(own)  # in place, as a cast leaves a quantizer's other tensors
        else:
            self._buffers[NAME] = own


@contextlib.contextmanager
def float32_by_default() -> Iterator[None]:
    """A block, or a function, whose new tensors are float32 where the default dtype has fewer bits."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.promote_types(before, torch.float32))
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _of_other_codes(kind: str, other: str, where: str = "") -> str:
    return (
        f"the checkpoint's indices{where} are of other codes than those of this {kind}: it has {other}. Build the "
        "quantizer with the checkpoint's options"
    )


def _constructor(owner: type[QuantizerState], constructor: Callable[..., None]) -> Callable[..., None]:
    """A class's `__init__`, run under a default dtype of at least 32 bits, and what follows it."""

    @functools.wraps(constructor)
    @float32_by_default()
    def construct(self: QuantizerState, *args: Any, **kwargs: Any) -> None:
        # Not by comparing functions: DeepSpeed puts functions of its own in the place of constructors.
        is_outermost = "_is_under_construction" not in self.__dict__
        self.__dict__["_is_under_construction"] = True
        try:
            constructor(self, *args, **kwargs)
            if _resets_after(owner, type(self)):
                self.reset_parameters()  # type: ignore[operator]
            if is_outermost:
                self._finish_construction()
        finally:
            if is_outermost:
                self.__dict__.pop("_is_under_construction", None)

    return construct


def _resets_after(owner: type, built: type) -> bool:
    """Whether the constructor of `owner` is where `reset_parameters` draws the state of a `built` object.

    That is the constructor of the class that defines `reset_parameters`, or, if this class has none, the one that
    it inherits: all parameters that it draws exist by then, and what a further subclass sets afterwards stays.
    """
    classes = built.__mro__
    defining = next((place for place, each in enumerate(classes) if "reset_parameters" in each.__dict__), None)
    if defining is None:
        return False
    return next(each for each in classes[defining:] if "__init__" in each.__dict__) is owner


def _widen(module: nn.Module) -> None:
    """Make half-precision parameters and buffers float32, in place, where they own their memory.

    A view of a larger buffer and a sharded tensor are a wrapper's, which would lose sight of them.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        if is_half(tensor) and _owns_memory(tensor):
            tensor.data = tensor.data.float()
            if tensor.grad is not None:
                tensor.grad = tensor.grad.float()


def _widen_loaded(module: nn.Module, _: object) -> None:
    """After `load_state_dict`, which may have put the checkpoint's own tensors in the places of ours."""
    _widen(module)


def _owns_memory(tensor: Tensor) -> bool:
    if type(tensor.data) is not Tensor:
        return False
    return tensor.is_meta or tensor.untyped_storage().nbytes() == tensor.numel() * tensor.dtype.itemsize
