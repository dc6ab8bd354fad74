"""Noise in place of rounding."""

import torch
from torch import Tensor


def with_noise(u: Tensor, steps: Tensor) -> Tensor:
    """u + ε with ε ~ U(−½, ½) / steps, which is as wide as the error of rounding to multiples of 1 / steps.

    Args: u: [..., d]; steps: [d], how many steps one unit of each channel has.
    """
    return u + (torch.rand_like(u) - 0.5) / steps
