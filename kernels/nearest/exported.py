"""The nearest code in PyTorch's own operations, for graphs of other runtimes."""

import torch
from torch import Tensor

from quantizers.kernels.common.compat import nan
from quantizers.kernels.common.exported import BLOCK
from quantizers.kernels.common.vectors import are_finite, compute_dtype
from quantizers.kernels.common.wide import wide
from quantizers.kernels.nearest import reference


def nearest_code(x: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """As kernels/nearest/reference.py up to its certificate, equation (3): codes that are closer together than
    twice that bound count as equally near, and the lowest of them is chosen.
    """
    indices, _, distance = nearest_lookup(x, codebook)
    return indices, distance.where(indices >= 0, nan(distance))


def nearest_lookup(x: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return indices [H, N], codes [H, N, D] and squared distances [H, N]; −1 and zeros for a vector that is not
    finite.
    """
    indices = torch.stack(
        [_nearest_index(rows, codes) for rows, codes in zip(x.unbind(0), codebook.unbind(0), strict=True)]
    )
    dtype, has_code = compute_dtype(x, codebook), indices >= 0
    codes = chosen_codes(codebook, indices).to(dtype)
    distance = (x.to(dtype) - codes).square().sum(-1)
    return indices, codes, distance.where(has_code, 0.0)


def chosen_codes(codebook: Tensor, indices: Tensor) -> Tensor:
    """Return codes [H, N, D] of a codebook [H, K, D] by indices [H, N]; zero for −1."""
    positions = indices.clamp(min=0)[..., None].expand(-1, -1, codebook.shape[-1])
    return codebook.gather(1, positions).where((indices >= 0)[..., None], 0.0)


def _nearest_index(x: Tensor, codebook: Tensor) -> Tensor:
    device, x, packed = x.device, wide(x), reference.pack(wide(codebook))
    finite = are_finite(x) & packed.finite.any()
    centred = x.where(finite[:, None], 0.0) - packed.centre
    bound = reference.relative_error(x) * (lengths(centred) * packed.radius + 0.5 * packed.radius.square())
    return first_lowest(packed.half_norms, -packed.centred, centred, bound).where(finite, -1).to(device)


def lengths(vectors: Tensor) -> Tensor:
    return vectors.square().sum(-1).sqrt()


def first_lowest(constants: Tensor, keys: Tensor, x: Tensor, bound: Tensor) -> Tensor:
    """Return the first index whose score, constant + x·key, is the lowest up to twice its bound.

    constants [K], keys [K, D], x [N, D], bound [N] → int64 [N].
    """
    lowest = torch.full_like(bound, torch.inf)
    indices = torch.zeros_like(bound, dtype=torch.int64)
    for start in range(0, keys.shape[0], BLOCK):
        scores = constants[start : start + BLOCK] + x @ keys[start : start + BLOCK].T
        lowest_here = scores.amin(-1)
        near = scores <= (lowest_here + 2 * bound)[:, None]
        first = near.to(torch.int32).argmax(-1) + start
        lower = lowest_here < lowest - 2 * bound
        indices = first.where(lower, indices)
        lowest = lowest_here.where(lower, lowest)
    return indices
