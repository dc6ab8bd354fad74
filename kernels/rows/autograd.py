"""The kernels of this folder as differentiable functions."""

from typing import Any

import torch
from torch import Tensor

from quantizers.kernels.common.dispatch import on_device_of
from quantizers.kernels.common.modes import is_differentiated_again
from quantizers.kernels.rows import reference, triton


class FiniteRows(torch.autograd.Function):
    """See `finite_rows` in kernels/rows/operation.py."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        with on_device_of(x):
            vectors, valid = triton.finite_rows(x, mask)
        _save(ctx, x.dtype, valid)
        ctx.mark_non_differentiable(valid)
        return vectors, valid

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: None) -> tuple[Tensor, None]:
        return _gradient_of_rows(ctx, gradient), None


class MarkedRows(torch.autograd.Function):
    """See `marked_rows` in kernels/rows/operation.py."""

    @staticmethod
    def forward(ctx: Any, codes: Tensor, indices: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        _save(ctx, codes.dtype, valid)
        with on_device_of(codes):
            marked, numbers = triton.marked_rows(codes, indices, valid)
        ctx.mark_non_differentiable(numbers)
        return marked, numbers

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: None) -> tuple[Tensor, None, None]:
        return _gradient_of_rows(ctx, gradient), None, None


class MeanLoss(torch.autograd.Function):
    """See `mean_loss` in kernels/rows/operation.py."""

    @staticmethod
    def forward(ctx: Any, losses: Tensor, valid: Tensor, channels: int) -> Tensor:
        with on_device_of(losses):
            means, divisor = triton.mean_loss(losses, valid, channels)
        ctx.save_for_backward(valid, divisor)
        return means

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        if is_differentiated_again():
            return reference.mean_loss_gradient(gradient, *ctx.saved_tensors), None, None
        with on_device_of(gradient):
            return triton.mean_loss_gradient(gradient, *ctx.saved_tensors), None, None


def _save(ctx: Any, dtype: torch.dtype, valid: Tensor) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(valid)
    ctx.dtype = dtype


def _gradient_of_rows(ctx: Any, gradient: Tensor) -> Tensor:
    (valid,) = ctx.saved_tensors
    if is_differentiated_again():
        return reference.rows_gradient(gradient, valid, ctx.dtype)
    with on_device_of(gradient):
        return triton.rows_gradient(gradient, valid, ctx.dtype)
