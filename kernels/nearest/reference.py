"""The nearest code, exactly, in float64: equations (1) to (5) of kernels/nearest/README.md.

Scores are computed in blocks of rows, so that no N × K matrix of more than `SCORE_BUDGET` elements exists.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from quantizers.kernels.common.constants import EXTRA_ROUNDINGS, ROUNDOFF_FLOAT64
from quantizers.kernels.common.vectors import compute_dtype
from quantizers.kernels.sums.reference import code_sums

SCORE_BUDGET = 2**21  # elements in the largest score block: 16 MiB in float64


@torch.no_grad()
def nearest_code(x: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """Return the nearest code of each vector in Euclidean distance, by equations (1) to (5).

    Args:
        x: [H, N, D] vectors, any floating dtype, finite or not.
        codebook: [H, K, D] codes, K ≥ 1. A code that is not finite is never chosen.

    Returns:
        indices: [H, N] int64. The smallest exact distance up to a relative error of (2D + 16)·2⁻⁵³; the lowest
            index of equal distances; −1 where a vector (or every code) is not finite.
        squared_distance: [H, N], the difference form Σ(x − e)² in float32 (float64 if an input is float64); NaN
            where the index is −1.
    """
    heads, n, d = x.shape
    size = codebook.shape[1]
    rows = max(1, SCORE_BUDGET // max(size, d))
    indices = torch.full((heads, n), -1, dtype=torch.int64, device=x.device)
    for head in range(heads):
        packed = pack(codebook[head])
        for start in range(0, n, rows):
            block = x[head, start : start + rows].double()
            indices[head, start : start + rows] = nearest_rows(block, packed)
    dtype = compute_dtype(x, codebook)
    chosen = codebook.gather(1, indices.clamp(min=0)[..., None].expand(-1, -1, d)).to(dtype)
    distance = (x.to(dtype) - chosen).square().sum(-1)
    return indices, distance.masked_fill(indices < 0, torch.nan)


@torch.no_grad()
def nearest_lookup(x: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return `nearest_code` with the chosen codes: indices [H, N], codes [H, N, D], squared distance [H, N].

    The codes are float32 (float64 if an input is float64), zero where the index is −1.
    """
    indices, distance = nearest_code(x, codebook)
    chosen = codebook.gather(1, indices.clamp(min=0)[..., None].expand(-1, -1, x.shape[-1]))
    return indices, chosen.to(distance.dtype).masked_fill((indices < 0)[..., None], 0.0), distance


@torch.no_grad()
def lookup_vector_gradient(
    loss_gradient: Tensor, x: Tensor, codes: Tensor, indices: Tensor, weight: float
) -> Tensor:
    """Return the gradient of the vectors for the losses w ‖x − sg[e]‖²: 2w(x − e) times the losses' gradient.

    Args:
        loss_gradient: [H, N].
        x, codes, indices: [H, N, D], [H, N, D] and [H, N], the inputs and outputs of `nearest_lookup`.

    Returns: [H, N, D] in x's dtype, zero where the index is −1.
    """
    pull = 2 * weight * loss_gradient[..., None] * (x.to(codes.dtype) - codes)
    return pull.where((indices >= 0)[..., None], 0.0).to(x.dtype)


@torch.no_grad()
def lookup_codebook_gradient(
    codes_gradient: Tensor | None,
    loss_gradient: Tensor,
    x: Tensor,
    codes: Tensor,
    indices: Tensor,
    weight: float,
    codebook_size: int,
) -> Tensor:
    """Return the gradient of the codebook for the chosen codes' gradient (None: zero) and the losses w ‖sg[x] −
    e‖².

    Args: as in `lookup_vector_gradient`; codes_gradient [H, N, D].

    Returns: [H, K, D] in the codes' dtype: for each code the sum over its vectors of 2w(e − x) and the code's
    gradient.
    """
    push = 2 * weight * loss_gradient[..., None] * (codes - x.to(codes.dtype))
    _, sums = code_sums(push if codes_gradient is None else push + codes_gradient, indices, codebook_size)
    return sums


class Packed(NamedTuple):
    """A codebook prepared for a search, in float64, computed once for all blocks of rows."""

    codes: Tensor  # [K, D], zero for a code that is not finite
    finite: Tensor  # [K] bool
    centre: Tensor  # [D], the mean code
    centred: Tensor  # [K, D], codes − centre
    half_norms: Tensor  # [K], ½‖centred‖², +inf for a code that is not finite
    radius: Tensor  # 0-d, the largest ‖centred‖


def pack(codebook: Tensor) -> Packed:
    """Prepare a codebook [K, D] of any floating dtype."""
    codes = codebook.double()
    finite = codes.isfinite().all(-1)
    codes = codes.where(finite[:, None], 0.0)
    centre = codes.sum(0) / finite.sum().clamp(min=1)
    centred = codes - centre
    half_norms = 0.5 * centred.square().sum(-1)
    radius = (2 * half_norms.where(finite, 0.0).amax(0)).sqrt()
    return Packed(codes, finite, centre, centred, half_norms.where(finite, torch.inf), radius)


def nearest_rows(x: Tensor, packed: Packed) -> Tensor:
    """Return indices [R] of rows x [R, D]: scores (1), certificate (3), and the difference form (4) where it
    fails.
    """
    x, finite = finite_or_zero(x)
    scores, bound = scores_of(x, packed)
    near = scores <= (scores.amin(-1) + 2 * bound)[:, None]
    indices = first_set(near)
    if near.count_nonzero() > len(x):
        uncertain = near.sum(-1) > 1
        indices[uncertain] = lowest_of_nearest(distances(x[uncertain], packed), near[uncertain], relative_error(x))
    return indices.where(finite & packed.finite.any(), -1)


def finite_or_zero(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows [R, D] with zeros for a row that is not finite, and which rows are finite, [R] bool."""
    finite = x.isfinite().all(-1)
    return x.where(finite[:, None], 0.0), finite


def scores_of(x: Tensor, packed: Packed) -> tuple[Tensor, Tensor]:
    """Return the scores (1) of finite rows [R, D], [R, K], +inf for a code that is not finite; and their errors
    (3), [R].
    """
    centred = x - packed.centre
    scores = torch.addmm(packed.half_norms, centred, packed.centred.T, alpha=-1)
    length = torch.linalg.vector_norm(centred, dim=-1)
    return scores, relative_error(x) * (length * packed.radius + 0.5 * packed.radius.square())


def distances(x: Tensor, packed: Packed) -> Tensor:
    """Return ‖x − e‖ [R, K] by the difference form (4), which is relatively accurate however close the codes
    are.
    """
    return torch.cdist(x, packed.codes, compute_mode="donot_use_mm_for_euclid_dist")


def lowest_of_nearest(distance: Tensor, near: Tensor, error: float) -> Tensor:
    """Return the lowest index [R] that (5) leaves of the codes `near`, both [R, K]; error: `relative_error`."""
    distance = distance.masked_fill(~near, torch.inf)
    return first_set(distance <= distance.amin(-1, keepdim=True) * (1 + error))


def relative_error(x: Tensor) -> float:
    """Return (D + 8) u in float64, of (3) and (5), for vectors x [..., D]."""
    return (x.shape[-1] + EXTRA_ROUNDINGS) * ROUNDOFF_FLOAT64


def first_set(flags: Tensor) -> Tensor:
    """Return the lowest column that is set in each row of a boolean matrix [R, K]."""
    return flags.view(torch.uint8).argmax(-1)
