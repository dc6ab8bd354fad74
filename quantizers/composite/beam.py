"""Beam search over the stages of residual quantization."""

from collections.abc import Sequence

import torch
from torch import Tensor

from quantizers.kernels.k_nearest.operation import k_nearest_codes

BLOCK = 2**22  # the numbers of beams that are extended at once: residuals, codes and distances


def beam_search(z: Tensor, codebooks: Sequence[Tensor], width: int) -> Tensor:
    """Find indices whose codes sum to nearly z: of all sums that the search tries, the one nearest to z.

    After each stage the `width` best sums of codes continue, each with all codes of the next stage (Liu, Lu, Shao:
    Improved Residual Vector Quantization, 2015, arXiv 1509.05195: multi-path encoding). With n stages of K codes,
    a width of K^(n−1) loses no sum. A smaller width may end farther from z than a search that takes the nearest
    code of each stage, so the caller compares the two.

        >>> codebooks = [torch.tensor([[0.0], [6.0]]), torch.tensor([[0.0], [4.0]])]
        >>> beam_search(torch.tensor([[3.5]]), codebooks, width=1)  # 6 + 0, an error of 2.5
        tensor([[1, 0]])
        >>> beam_search(torch.tensor([[3.5]]), codebooks, width=2)  # 0 + 4, an error of 0.5
        tensor([[0, 1]])

    Args:
        z: [N, D].
        codebooks: one [K, D] for each stage, in z's dtype.
        width: ≥ 1. Memory is O(N · stages) and one block.

    Returns: [N, stages] int64.
    """
    rows = max(1, BLOCK // (width * (z.shape[1] + width + len(codebooks))))
    blocks = [_search(block, codebooks, width) for block in torch.split(z, rows)] if len(z) else []
    empty = torch.empty(0, len(codebooks), dtype=torch.int64, device=z.device)
    return torch.cat([empty, *blocks])


def _search(z: Tensor, codebooks: Sequence[Tensor], width: int) -> Tensor:
    residuals = z[:, None]  # [N, beams, D], the best first
    paths = torch.empty(len(z), 1, 0, dtype=torch.int64, device=z.device)
    for codebook in codebooks:
        best, codes = _extend(residuals, codebook, width)
        extended = torch.gather(paths, 1, best[..., None].expand(-1, -1, paths.shape[2]))
        paths = torch.cat([extended, codes[..., None]], -1)
        residuals = torch.gather(residuals, 1, best[..., None].expand(-1, -1, z.shape[1])) - codebook[codes]
    return paths[:, 0]


def _extend(residuals: Tensor, codebook: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The best pairs of a beam and a code, best first, [N, ≤ width] each: each beam offers its nearest codes."""
    count = min(width, len(codebook))
    codes, distances = k_nearest_codes(residuals.flatten(0, 1)[None], codebook[None], count)
    distances = distances.where(codes >= 0, torch.inf).view(len(residuals), -1)
    best = distances.topk(min(width, distances.shape[1]), largest=False, sorted=True).indices
    return best // count, codes.clamp(min=0).view(len(residuals), -1).gather(1, best)
