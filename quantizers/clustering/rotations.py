"""Rotations that make vectors easier to quantize, from sums over the vectors: [D, D] matrices, not the vectors."""

from collections.abc import Sequence

import torch
from torch import Tensor

from quantizers.clustering.scaling import scaled
from quantizers.core.arguments.checks import Size, check_as, check_tensor
from quantizers.kernels.common.arguments import check_floating
from quantizers.kernels.common.wide import narrowed


@torch.no_grad()
def balanced_rotation(covariance: Tensor, groups: Sequence[int]) -> Tensor:
    """The rotation R for which groups of the channels of Rz are uncorrelated and have about equal determinants.

    This is the parametric solution of optimized product quantization. For normal z with covariance Σ, the error of
    a product quantizer with K codes per group is bounded from below by Σ_m K^(−2/w_m) · w_m · |Σ_m|^(1/w_m), where
    Σ_m is the covariance of the w_m channels of group m in Rz. The rows of R are the eigenvectors of Σ. They go to
    the groups in the order of falling eigenvalues, each to the group that is not full and has the smallest product
    of eigenvalues so far. With groups of different widths the logarithm of the product is divided by the width.

    Eigenvalues are taken as at least 2⁻⁵² of the largest, and divided by the smallest, so that no product falls as
    it grows by a factor. Ties go to the first group. Within a group, eigenvalues fall. The component of largest
    magnitude in each row of R is positive, the first one in case of ties, so that equal matrices give equal
    rotations. Computed in float64 on the CPU.

    Args:
        covariance: Σ [D, D], symmetric, up to any positive factor; only its symmetric part counts. Zero gives
            the unit vectors, in an order that spreads them over the groups.
        groups: the number of channels of each group, in order, together D.

    Returns: R [D, D], on the device and in the dtype of `covariance`.

    Raises: TypeError unless `covariance` is a floating tensor. ValueError for another shape, values that are not
        finite, and widths that do not add up to D.

    Source: Ge, He, Ke, Sun: Optimized Product Quantization for Approximate Nearest Neighbor Search, CVPR 2013,
        §3.3 (eigenvalue allocation).
    """
    matrix = scaled(_checked("covariance", covariance))
    widths = [check_as(Size, f"groups[{position}]", width) for position, width in enumerate(groups)]
    if sum(widths) != len(matrix):
        raise ValueError(f"groups is {widths}, which adds up to {sum(widths)}, expected {len(matrix)} channels")
    values, vectors = torch.linalg.eigh(matrix + matrix.T)
    values, rows = values.flip(0), _with_signs(vectors.T.flip(0))
    return narrowed(rows[_allocation(values, widths)], covariance.dtype, covariance.device)


@torch.no_grad()
def procrustes_rotation(cross: Tensor) -> Tensor:
    """The rotation R that brings vectors nearest to their codes: it minimizes Σ_i ‖R z_i − q_i‖².

    Since R keeps lengths, the same R maximizes tr(R C) with C = Σ_i z_i q_iᵀ. With the singular value
    decomposition C = U S Vᵀ it is R = V Uᵀ (the orthogonal Procrustes problem). R may contain a reflection:
    det R = ±1.

    If C has not full rank, several R are best. The matrix that is decomposed is C + 2⁻⁴⁰ s I, with s the largest
    singular value of C, which selects one near the identity. C = 0 gives the identity itself. Computed in float64
    on the CPU.

    Args: cross: C [D, D], up to any positive factor.

    Returns: R [D, D], on the device and in the dtype of `cross`.

    Raises: TypeError unless `cross` is a floating tensor; ValueError for another shape, and for values that are
        not finite.

    Source: Schönemann: A Generalized Solution of the Orthogonal Procrustes Problem, Psychometrika 31, 1966; in
        optimized product quantization, Ge et al., CVPR 2013, §3.2.
    """
    matrix = scaled(_checked("cross", cross))
    largest = torch.linalg.matrix_norm(matrix, 2)
    nudge = 2.0**-40 * largest if largest > 0 else 1.0
    u, _, vh = torch.linalg.svd(matrix + nudge * torch.eye(len(matrix), dtype=torch.float64, device="cpu"))
    return narrowed(vh.T @ u.T, cross.dtype, cross.device)


def _allocation(values: Tensor, widths: Sequence[int]) -> list[int]:
    """The positions of falling eigenvalues [D], group after group."""
    logarithms = values.clamp(min=float(values[0]) * 2.0**-52).clamp(min=torch.finfo(values.dtype).tiny).log()
    gains = (logarithms - logarithms[-1]).tolist()
    members: list[list[int]] = [[] for _ in widths]
    products = [0.0] * len(widths)
    for position, gain in enumerate(gains):
        open_groups = [group for group, width in enumerate(widths) if len(members[group]) < width]
        group = min(open_groups, key=lambda group: (products[group], len(members[group]) / widths[group], group))
        members[group].append(position)
        products[group] += gain / widths[group]
    return [position for group in members for position in group]


def _with_signs(rows: Tensor) -> Tensor:
    """Rows [D, D], each times ±1 so that its first component of largest magnitude is positive."""
    largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
    return rows * largest.sign()


def _checked(name: str, matrix: object) -> Tensor:
    """A square matrix in float64 on the CPU."""
    tensor = check_tensor(name, matrix)
    check_floating(**{name: tensor})
    if tensor.ndim != 2 or tensor.shape[0] != tensor.shape[1] or not tensor.numel():
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected [D, D] with D ≥ 1")
    if not tensor.isfinite().all():
        raise ValueError(f"{name} has values that are not finite, expected none")
    return tensor.detach().cpu().double()
