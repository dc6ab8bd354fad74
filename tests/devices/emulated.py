"""A device without float64, and without the operators that mps lacks, on a machine that has no such device.

Its tensors are a class of their own, on a device type of their own, and keep their values in a CPU tensor. The
import of this module registers the device type with PyTorch, for the whole process. It must come before the first
backward of the process, and other tests should not see it, so tests import it in processes of their own.

What is refused is refused by mps, too, or may be: conversions that change dtype and device in one step with
float64 on either side, and generators of another device.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_iter, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

from tests.devices.lacking import lacking_operators

NAME = "emulated"
WIDE = (torch.float64, torch.complex128)
TAKES_INDICES_OF_THE_CPU = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")
PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm")
ROUNDED_PRODUCTS = False  # whether matrix products round float32 operands to bfloat16, as some accelerators do
COPIES = ("aten::copy_", "aten::_to_copy", "aten::_copy_from")


class _Module(_DummyBackendModule):
    """What PyTorch asks of the module torch.emulated. Random numbers are those of the CPU's generator."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]

    def get_rng_state(self, device: Any = None) -> Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: Tensor, device: Any = None) -> None:
        torch.set_rng_state(state)


_setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
DEVICE = torch.device(NAME, 0)


class EmulatedTensor(Tensor):
    """A tensor of the device; `values` is the CPU tensor with what it holds."""

    values: Tensor

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, values: Tensor) -> "EmulatedTensor":
        _refuse_wide(values.dtype)
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            values.shape,
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=DEVICE,
        )
        tensor.values = values
        return tensor

    def tolist(self) -> Any:
        return self.detach().cpu().tolist()

    def dequantize(self) -> Tensor:
        """Of a subclass with its own encoding this would be the values; the device has none."""
        return self.clone()

    def __repr__(self) -> str:
        return f"EmulatedTensor({self.values})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func.namespace != "aten":  # an operation of this library, which computes with the device's tensors
            return func._op_dk(torch._C.DispatchKey.CompositeExplicitAutograd, *args, **kwargs)
        _refuse(func, args, kwargs)
        stays = torch.device(kwargs.get("device") or DEVICE).type != "cpu"
        if "device" in kwargs:
            kwargs["device"] = "cpu"
        values = _computed(func, tree_map(_values, args), tree_map(_values, kwargs))
        written = _written(func, args, kwargs)
        if written is not None:
            return written
        return tree_map(_wrapped, values) if stays else values


def _computed(func: Any, args: Any, kwargs: Any) -> Any:
    if ROUNDED_PRODUCTS and func._schema.name in PRODUCTS:
        args = [value.bfloat16().float() if isinstance(value, Tensor) else value for value in args]
    return func(*args, **kwargs)


def _values(thing: Any) -> Any:
    return thing.values if isinstance(thing, EmulatedTensor) else thing


def _wrapped(thing: Any) -> Any:
    return EmulatedTensor(thing) if isinstance(thing, Tensor) else thing


def _written(func: Any, args: Any, kwargs: Any) -> Any:
    """Return the arguments that an operator writes to and returns; None for one that returns new tensors."""
    returns = [value.alias_info for value in func._schema.returns]
    if not any(alias is not None and alias.is_write for alias in returns):
        return None
    names = [argument.name for argument in func._schema.arguments]
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    found = [
        given[argument.name]
        for argument in func._schema.arguments
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    written = tuple(map(_as_now, found))
    return written[0] if len(written) == 1 else written


def _as_now(tensor: Any) -> Any:
    """Return a tensor that was written to; a new one if its shape changed, as that of an empty tensor may."""
    is_same = not isinstance(tensor, EmulatedTensor) or tensor.shape == tensor.values.shape
    return tensor if is_same else EmulatedTensor(tensor.values)


def _refuse(func: Any, args: Any, kwargs: Any) -> None:
    """Raise what mps would raise for such a call."""
    schema = func._schema
    name = schema.name + (f".{schema.overload_name}" if schema.overload_name else "")
    if name in lacking_operators():
        raise NotImplementedError(f"The operator {name!r} is not currently implemented for this device")
    tensors = [thing for thing in tree_iter((args, kwargs)) if isinstance(thing, Tensor)]
    if schema.name in COPIES:
        if kwargs.get("dtype") in WIDE or any(tensor.dtype in WIDE for tensor in tensors):
            raise TypeError("The device does not support float64: change the dtype on the CPU, in its own step")
        return
    _refuse_wide(kwargs.get("dtype"))
    generator = kwargs.get("generator")
    if generator is not None:
        raise RuntimeError(f"Expected a generator of {DEVICE}, but found one of {generator.device}")
    if schema.name in TAKES_INDICES_OF_THE_CPU and isinstance(args[0], EmulatedTensor):
        tensors = [thing for thing in (args[0], *args[2:]) if isinstance(thing, Tensor)]
    foreign = [tensor for tensor in tensors if not isinstance(tensor, EmulatedTensor) and tensor.dim() > 0]
    if foreign:
        raise RuntimeError(
            f"{name}: expected all tensors to be on one device, found {DEVICE} and {foreign[0].device}"
        )


def _refuse_wide(dtype: torch.dtype | None) -> None:
    if dtype in WIDE:
        raise TypeError(f"Cannot convert a tensor of this device to {dtype}: the device does not support it")


def _empty(size: Any, *, dtype: torch.dtype | None = None, **options: Any) -> EmulatedTensor:
    return EmulatedTensor(torch.empty(size, dtype=dtype, device="cpu"))


def _empty_strided(size: Any, stride: Any, *, dtype: torch.dtype | None = None, **options: Any) -> EmulatedTensor:
    return EmulatedTensor(torch.empty_strided(size, stride, dtype=dtype, device="cpu"))


def _eye(rows: int, columns: int | None = None, *, dtype: torch.dtype | None = None, **options: Any) -> Tensor:
    """PyTorch's own returns the empty tensor that it fills, whose shape cannot change here."""
    return EmulatedTensor(torch.eye(rows, columns or rows, dtype=dtype, device="cpu"))


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    values = _values(target).copy_(_values(source))
    return target if isinstance(target, EmulatedTensor) else values


LIBRARY = torch.library.Library("aten", "IMPL", "PrivateUse1")
LIBRARY.impl("empty.memory_format", _empty)
LIBRARY.impl("empty_strided", _empty_strided)
LIBRARY.impl("eye", _eye)
LIBRARY.impl("eye.m", _eye)
LIBRARY.impl("_copy_from", _copy_from)
FALLBACK = torch.library.Library("_", "IMPL")
FALLBACK.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")  # it casts nothing
