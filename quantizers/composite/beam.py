"""Beam search over the stages of residual quantization."""

from collections.abc import Sequence

import torch
from torch import Tensor

BLOCK = 2**21  # distances at a time


def beam_search(z: Tensor, codebooks: Sequence[Tensor], width: int) -> Tensor:
    """Indices whose codes sum to nearly z: of all that were tried, those with the smallest ‖z − Σ q_i‖².

    After each stage the `width` best sums of codes go on, each with all codes of the next stage (Liu, Lu, Shao:
    Improved Residual Vector Quantization, 2015, arXiv 1509.05195: multi-path encoding). Of n stages of K codes,
    K^(n−1) beams lose no sum. Fewer may end farther away than the search that takes the nearest code of each
    stage, so that the caller compares.

    Args:
        z: [N, D]. codebooks: of each stage [K, D], in z's dtype. width: ≥ 1. Memory:
            O(N · width · (D + stages)) and a block of distances.

    Returns: [N, stages] int64.
    """
    rows = max(1, BLOCK // (max(len(codebook) for codebook in codebooks) * width))
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
    """The best pairs of a beam and a code, the best first, [N, ≤ width] each."""
    # Flat: of a batch of codebooks, if an expanded one, cdist would make a copy.
    distances = torch.cdist(residuals.flatten(0, 1), codebook, compute_mode="donot_use_mm_for_euclid_dist")
    flat = distances.reshape(len(residuals), -1)
    best = flat.topk(min(width, flat.shape[1]), largest=False, sorted=True).indices
    return best // len(codebook), best % len(codebook)
