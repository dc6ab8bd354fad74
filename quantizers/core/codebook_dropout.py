"""Dropout of the last codebooks of a quantizer that has several."""

import torch
from torch import Tensor

from quantizers.core.layout import Rows
from quantizers.core.samples import count_draws, spread_draws


def draw_depths(rows: Rows, parts: int, probability: float, by_sample: bool) -> Tensor:
    """Draw how many parts each row uses: all, or with `probability` a number drawn uniformly from 1 to all.

    Kumar et al. 2023 (arXiv 2306.06546), §3.3.

    Args:
        rows: N rows, with the shape of their batch.
        parts: how many stages or groups there are.
        by_sample: whether each sample, the first axis of the batch, draws for itself, or one draw holds for all.

    Returns: int64 [N].
    """
    samples, device = count_draws(rows, by_sample), rows.valid.device
    drawn = torch.randint(1, parts + 1, (samples,), device=device)
    drawn = drawn.where(torch.rand(samples, device=device) < probability, parts)
    return spread_draws(rows, drawn, by_sample)
