"""float64 for the tensors of every device: on the CPU where their own device has none, as Apple's mps."""

import functools

import torch
from torch import Tensor

CPU = torch.device("cpu")


def has_float64(device: torch.device) -> bool:
    """Whether a device computes in float64. Devices of other makers are asked once for each."""
    if device.type in ("cpu", "cuda", "meta"):
        return True
    return device.type != "mps" and _computes_float64(device)


def wide_device(device: torch.device) -> torch.device:
    """Return where the tensors of a device are in float64: the device itself, or the CPU."""
    return device if has_float64(device) else CPU


def wide(tensor: Tensor) -> Tensor:
    """Return a tensor in float64, on its `wide_device`."""
    if not has_float64(tensor.device):
        tensor = tensor.cpu()  # in a step of its own, since the device cannot convert to float64
    return tensor.double()


def narrowed(result: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return what was computed from `wide` tensors in the dtype and on the device of the result."""
    result = result.to(dtype)  # in a step of its own, since the device cannot convert from float64
    return result if result.device == device else result.to(device)


@functools.cache
def multiplies_in_float32(device: torch.device) -> bool:
    """Whether a device's matrix products of float32 keep its precision. Some accelerators round the operands.

    Devices other than CPUs and "cuda" are asked once, by two products with the identity.
    """
    if device.type in ("cpu", "cuda"):
        return True
    one = torch.eye(64, device=device)
    number = one + 2.0**-12 + 2.0**-23  # an odd multiple of its last bit
    return torch.equal(number @ one, number) and torch.equal(one @ number, number)


@functools.cache
def _computes_float64(device: torch.device) -> bool:
    try:
        return float(torch.ones((), dtype=torch.float64, device=device) + 2.0**-50) > 1
    except (RuntimeError, TypeError):  # NotImplementedError is a RuntimeError
        return False


# What torch.compiler.assume_constant_result does; calling it here would import PyTorch's compiler.
_computes_float64._dynamo_marked_constant = True  # type: ignore[attr-defined]
