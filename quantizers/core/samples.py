"""Values that each sample of a batch has for itself, or that the whole batch shares."""

import torch
from torch import Tensor

from quantizers.core.layout import Rows


def count_draws(rows: Rows, by_sample: bool) -> int:
    """How many values to draw: one for each sample, the first axis of the batch, or one for all."""
    return rows.shape[0] if by_sample and len(rows.shape) > 0 else 1


def spread_draws(rows: Rows, drawn: Tensor, by_sample: bool) -> Tensor:
    """The drawn values [count_draws] for each of the N rows: [N]."""
    rows_each = rows.shape[1:].numel() if by_sample and len(rows.shape) > 0 else rows.valid.shape[0]
    return drawn[:, None].expand(drawn.shape[0], rows_each).reshape(-1)


def draw_samples(rows: Rows, probability: float) -> Tensor:
    """Which of the N rows are drawn, [N] bool: each sample with this probability, with all of its rows."""
    drawn = torch.rand(count_draws(rows, by_sample=True), device=rows.valid.device)
    return spread_draws(rows, drawn < probability, by_sample=True)
