"""The state of a quantizer: float32 regardless of casts, and checked when a checkpoint is loaded."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Self

from quantizers.core.state.half_state import is_half
from quantizers.core.state.index_format import NAME, Rule, as_bytes, difference
from quantizers.core.state.initialization import SelfInitialized


class QuantizerState(SelfInitialized):
    """Parameters and buffers in float32 or float64, all of them in the state dict.

    - Constructors use float32 where the default dtype has fewer bits, such as in `from_pretrained(dtype=...)`.
    - `.half()`, `.bfloat16()` and similar casts leave the state in float32. A loader that sets parameters one by
      one may still change the dtype; `train()` and `eval()` restore float32.
    - The meaning of the indices is part of the state (see `index_format`): a checkpoint with other levels or
      another distance does not load, even where its tensors have the same names and shapes.
    """

    renamed: ClassVar[Mapping[str, str]] = {}
    """Old checkpoint names of parameters and buffers, mapped to the current ones."""

    _dtype: torch.dtype
    """The dtype of the state, float32 or float64; defined even for a quantizer without parameters and buffers."""

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
        """The options that determine which code an index means, other than the tensors of the state.

        JSON values by name; empty, the default, where the tensors alone determine it.
        """
        return {}

    def _finish_construction(self) -> None:
        """Runs after the outermost constructor."""
        _widen(self)
        if self._index_rule:
            self.register_buffer(NAME, as_bytes(self._index_rule))

    def _step_tensor(self, name: str, like: Tensor) -> Tensor:
        """A tensor that persists between forwards, with the shape, dtype and device of `like`; zeros at first.

        It is no buffer: it is meaningless once the training step is over, so checkpoints do not contain it.
        """
        tensor = self._step_tensors.get(name)
        if tensor is None or (tensor.shape, tensor.dtype, tensor.device) != (like.shape, like.dtype, like.device):
            tensor = self._step_tensors[name] = torch.zeros_like(like, requires_grad=False)
        return tensor

    @property
    def _device(self) -> torch.device:
        """The device of the state; the default device for a quantizer without parameters and buffers."""
        tensors = (*self.parameters(), *self.buffers())
        return tensors[0].device if tensors else torch.get_default_device()

    def train(self, mode: bool = True) -> Self:
        """Set the training mode, and convert state that a loader has set to half precision back to float32."""
        _widen(self)
        return super().train(mode)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        stored = destination.get(prefix + NAME)
        if stored is not None and not stored.is_meta:  # a loader may have set the buffer: write the rule itself
            destination[prefix + NAME] = as_bytes(self._index_rule, stored.device)

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
        """See SelfInitialized. Also writes the meaning of the indices to its buffer again.

        Raises: ValueError if a loader other than `load_state_dict` has loaded a checkpoint whose indices mean
            other codes.
        """
        stored = self._buffers.get(NAME)
        if stored is not None and not stored.is_meta:
            if getattr(stored, "_is_hf_initialized", False) and (other := difference(stored, self._index_rule)):
                raise ValueError(_different_codes(type(self).__name__, other))
            self._write_format()
            self._without_values -= {NAME}
        super().initialize_missing()

    def _with_own_format(self, state_dict: dict[str, Any], prefix: str, errors: list[str]) -> dict[str, Any]:
        """The checkpoint with this quantizer's rule for its indices. A different rule in it adds an error."""
        found = state_dict.get(prefix + NAME)
        if found is not None and (other := difference(found, self._index_rule)):
            errors.append(_different_codes(type(self).__name__, other, f" at {prefix.removesuffix('.')!r}"))
        own = self.get_buffer(NAME)
        return {**state_dict, prefix + NAME: as_bytes(self._index_rule, None if own.is_meta else own.device)}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """`.to`, `.half`, `.cuda` and the like. A cast below float32 becomes a cast to float32.

        A tensor that is below float32 already keeps its dtype: DeepSpeed casts each parameter, moves the module,
        and copies all parameters into one buffer, which must have one dtype.
        """

        def at_least_float32(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            if moved.dtype != tensor.dtype and not tensor.is_floating_point():
                return tensor.to(moved.device)  # `.type` would convert integers to floating point
            if is_half(moved) and moved.dtype != tensor.dtype:
                return tensor.to(moved.device, torch.promote_types(tensor.dtype, torch.float32))
            return moved

        self._dtype = at_least_float32(torch.empty(0, dtype=self._dtype, device="cpu")).dtype
        # Tensors on the meta device have no values, and no loader fills them; `_step_tensor` makes new ones.
        tensors = {name: tensor for name, tensor in self._step_tensors.items() if not tensor.is_meta}
        self._step_tensors = {name: at_least_float32(tensor) for name, tensor in tensors.items()}
        super()._apply(at_least_float32, recurse)
        self._write_format()
        return self

    def _write_format(self) -> None:
        """Write the current rule to its buffer, which `to_empty` and some loaders leave uninitialized."""
        stored = self._buffers.get(NAME)
        if stored is None or stored.is_meta:
            return
        own = as_bytes(self._index_rule, stored.device)
        if own.shape == stored.shape:
            stored.copy_(own)  # in place: the buffer stays the same tensor, as the others do in a cast
        else:
            self._buffers[NAME] = own


@contextlib.contextmanager
def float32_by_default() -> Iterator[None]:
    """A block or a function that creates float32 tensors where the default dtype has fewer bits."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.promote_types(before, torch.float32))
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _different_codes(kind: str, other: str, where: str = "") -> str:
    return (
        f"the checkpoint's indices{where} mean other codes than the indices of this {kind}: the checkpoint has "
        f"{other}. Build the quantizer with the options of the checkpoint"
    )


def _constructor(owner: type[QuantizerState], constructor: Callable[..., None]) -> Callable[..., None]:
    """The `__init__` of a class, run with a default dtype of at least 32 bits, with its reset and its end."""

    @functools.wraps(constructor)
    @float32_by_default()
    def construct(self: QuantizerState, *args: Any, **kwargs: Any) -> None:
        # Comparing functions would not work: DeepSpeed replaces constructors by its own functions.
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
    """Whether `reset_parameters` runs at the end of the constructor of `owner`, for an instance of `built`.

    It runs after the constructor of the class that defines it, or after the one that this class inherits: by then
    all parameters that it initializes exist, and a subclass can set others afterwards.
    """
    classes = built.__mro__
    defining = next((i for i, each in enumerate(classes) if "reset_parameters" in each.__dict__), None)
    if defining is None:
        return False
    return next(each for each in classes[defining:] if "__init__" in each.__dict__) is owner


def _widen(module: nn.Module) -> None:
    """Convert half-precision parameters and buffers to float32, in place, where they own their memory.

    Views of a larger buffer and sharded tensors belong to a wrapper, which would lose track of them.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        if is_half(tensor) and _owns_memory(tensor):
            tensor.data = tensor.data.float()
            if tensor.grad is not None:
                tensor.grad = tensor.grad.float()


def _widen_loaded(module: nn.Module, _: object) -> None:
    """Runs after `load_state_dict`, which may have assigned the tensors of the checkpoint (`assign=True`)."""
    _widen(module)


def _owns_memory(tensor: Tensor) -> bool:
    if type(tensor.data) is not Tensor:
        return False
    return tensor.is_meta or tensor.untyped_storage().nbytes() == tensor.numel() * tensor.dtype.itemsize
