"""Scales at which squares fit every dtype."""

import math

import torch
from torch import Tensor


def scaled(values: Tensor) -> Tensor:
    """Values divided by the power of two next to their largest magnitude, which is exact; zero unchanged."""
    _, exponent = math.frexp(float(values.abs().max()))
    return torch.ldexp(values, torch.tensor(-exponent, device=values.device))
