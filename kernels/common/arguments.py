"""Checks that arguments fit together. They look at shapes, dtypes and devices only, never at values."""

import torch
from torch import Tensor


def check_codebook(x: Tensor, codebook: Tensor) -> None:
    """Check x [H, N, D] and codebook [H, K, D]: floating dtypes, one device, K ≥ 1, D ≥ 1."""
    check_axes("x", x, "[H, N, D]")
    check_axes("codebook", codebook, "[H, K, D]")
    check_floating(x=x, codebook=codebook)
    check_device(x=x, codebook=codebook)
    for axis, name in ((0, "heads"), (2, "channels")):
        check_equal(name, "x", x.shape[axis], "codebook", codebook.shape[axis])
    check_not_empty("codebook", codebook)


def check_keys(x: Tensor, keys: Tensor, bias: Tensor) -> None:
    """Check x [N, D], keys [K, D] and bias [K]: floating dtypes, one device, K ≥ 1, D ≥ 1."""
    check_axes("x", x, "[N, D]")
    check_axes("keys", keys, "[K, D]")
    check_axes("bias", bias, "[K]")
    check_floating(x=x, keys=keys, bias=bias)
    check_device(x=x, keys=keys, bias=bias)
    check_equal("channels", "x", x.shape[1], "keys", keys.shape[1])
    check_equal("codes", "keys", keys.shape[0], "bias", bias.shape[0])
    check_not_empty("keys", keys)


def check_indices(x: Tensor, indices: Tensor) -> None:
    """Check that indices are int64, have x's shape without its last axis, and are on its device."""
    if indices.is_floating_point() or indices.dtype.itemsize != 8:
        raise TypeError(f"indices have dtype {indices.dtype}, expected torch.int64")
    if indices.shape != x.shape[:-1]:
        raise ValueError(
            f"indices have shape {tuple(indices.shape)}, expected {tuple(x.shape[:-1])}, x's shape without its "
            "last axis"
        )
    check_device(x=x, indices=indices)


def check_axes(name: str, tensor: Tensor, expected: str) -> None:
    """Check that a tensor has as many axes as `expected` names."""
    if tensor.dim() != expected.count(",") + 1:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {expected}")


def check_floating(**tensors: Tensor) -> None:
    """Check that tensors have floating dtypes."""
    for name, tensor in tensors.items():
        # Of the dtype: a compiled autograd.Function of torch 2.4 cannot call the tensor's method.
        if not tensor.dtype.is_floating_point:
            raise TypeError(f"{name} has dtype {tensor.dtype}, expected a floating dtype")


def check_device(**tensors: Tensor) -> None:
    """Check that tensors are on one device."""
    (first, tensor), *others = tensors.items()
    for name, other in others:
        if other.device != tensor.device:
            raise ValueError(f"{name} is on {other.device} and {first} on {tensor.device}; expected one device")


def check_count(name: str, count: int, most: int, what: str) -> None:
    """Check that a number of things lies between 1 and how many of them there are."""
    if not isinstance(count, (int, torch.SymInt)) or isinstance(count, bool):
        raise TypeError(f"{name} is {count!r}, expected an integer")
    if not 1 <= count <= most:
        raise ValueError(f"{name} is {count}, expected 1 to {most}, the number of {what}")


def check_equal(what: str, first: str, first_size: int, second: str, second_size: int) -> None:
    """Check two sizes that must agree."""
    if first_size != second_size:
        raise ValueError(
            f"got {first_size} {what} in {first} but {second_size} in {second}; expected equal numbers"
        )


def check_not_empty(name: str, codes: Tensor) -> None:
    """Check for at least one code with at least one channel."""
    if codes.shape[-2] < 1 or codes.shape[-1] < 1:
        raise ValueError(f"{name} has shape {tuple(codes.shape)}, expected at least one code with one channel")
