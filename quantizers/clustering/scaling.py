"""Scales at which squares fit every dtype."""

import math

from torch import Tensor


def scaled(values: Tensor) -> Tensor:
    """Values divided by the power of two next to their largest magnitude; zero unchanged.

    This is exact, unless a quotient is subnormal. The power itself may be too large or too small for the dtype, so
    the values are divided twice, by about its square root. `torch.ldexp` multiplies by the power at least up to
    PyTorch 2.9, and in 2.4 by a power in float32.
    """
    _, exponent = math.frexp(float(values.abs().max()))
    half = exponent // 2
    return values * 2.0**-half * 2.0 ** (half - exponent)
