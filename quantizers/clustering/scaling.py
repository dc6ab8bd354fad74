"""Scales at which squares fit every dtype."""

import torch
from torch import Tensor


def scaled(values: Tensor) -> Tensor:
    """Values divided by the power of two next to their largest magnitude, which is exact; zero unchanged."""
    _, exponent = torch.frexp(values.abs().max())
    return torch.ldexp(values, -exponent)
