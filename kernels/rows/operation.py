"""Rows that count and rows that do not: one kernel each on a GPU in eager mode, else PyTorch's own operations.

A compiler fuses those with what surrounds them, so a graph gets them too.
"""

from torch import Tensor

from quantizers.kernels.common.dispatch import runs_triton
from quantizers.kernels.rows import reference


def finite_rows(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Set rows that do not count to zero.

    Args:
        x: [N, D], any floating dtype.
        mask: [N] bool, the rows that count; None for all.

    Returns:
        vectors: [N, D], float32 (float64 for float64 input), zero where a row is masked or not finite.
        valid: [N] bool, the other rows.
    """
    if not runs_triton(x):
        return reference.finite_rows(x, mask)
    from quantizers.kernels.rows.autograd import FiniteRows

    vectors, valid = FiniteRows.apply(x, mask)  # type: ignore[no-untyped-call]
    return vectors, valid


def marked_rows(codes: Tensor, indices: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Return codes [N, D] and indices [N] or [N, C], with NaN and −1 in rows that are not valid [N].

    The codes get no gradient from these rows.
    """
    if not runs_triton(codes, indices, valid):
        return reference.marked_rows(codes, indices, valid)
    from quantizers.kernels.rows.autograd import MarkedRows

    marked, numbers = MarkedRows.apply(codes, indices, valid)  # type: ignore[no-untyped-call]
    return marked, numbers


def mean_loss(losses: Tensor, valid: Tensor, channels: int) -> Tensor:
    """Return the mean of losses [N] or [H, N] over the valid rows [N] and a number of channels: [] or [H], zero
    without a row.
    """
    if not runs_triton(losses, valid):
        return reference.mean_loss(losses, valid, channels)
    from quantizers.kernels.rows.autograd import MeanLoss

    means: Tensor = MeanLoss.apply(losses, valid, channels)  # type: ignore[no-untyped-call]
    return means
