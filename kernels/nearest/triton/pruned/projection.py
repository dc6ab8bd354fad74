"""Few coordinates of vectors, whose differences are no larger than distances.

Equations (17) and (18) of kernels/nearest/README.md.
"""

import triton
import triton.language as tl

from quantizers.kernels.common.triton.loads import load_tile
from quantizers.kernels.nearest.triton.pack import inverse_power_of_two
from quantizers.kernels.nearest.triton.pruned.order import COORDINATES

_COORDINATES = tl.constexpr(COORDINATES)


@triton.jit
def coordinates_of(
    rows_ptr,
    stride_d,
    finite,
    centre_ptr,
    axes_ptr,
    d,
    AXES: tl.constexpr,
    DISTANCE: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """φ of (17) [ROWS, COORDINATES] of the finite rows, in float64 and in their own units; zero of others."""
    column = tl.arange(0, _COORDINATES)
    coordinates = tl.zeros([ROWS, _COORDINATES], tl.float64)
    for start in range(0, d, CHANNELS):
        tile = _centred(rows_ptr, stride_d, finite, centre_ptr, start, d, CHANNELS)
        for number in tl.static_range(AXES):
            product = tl.sum(tile * _axis(axes_ptr, number, start, d, CHANNELS)[None, :], 1)
            coordinates += tl.where(column[None, :] == number, product[:, None], 0.0)
    if DISTANCE:
        squares = tl.zeros([ROWS], tl.float64)
        for start in range(0, d, CHANNELS):
            tile = _centred(rows_ptr, stride_d, finite, centre_ptr, start, d, CHANNELS)
            for number in tl.static_range(AXES):
                product = tl.sum(tl.where(column[None, :] == number, coordinates, 0.0), 1)
                tile -= product[:, None] * _axis(axes_ptr, number, start, d, CHANNELS)[None, :]
            squares += tl.sum(tile * tile, 1)
        coordinates = tl.where(column[None, :] == AXES, tl.sqrt(squares)[:, None], coordinates)
    return coordinates


@triton.jit
def _centred(rows_ptr, stride_d, finite, centre_ptr, start, d, CHANNELS: tl.constexpr):
    channels = start + tl.arange(0, CHANNELS)
    centre = tl.load(centre_ptr + channels, mask=channels < d, other=0.0)
    tile = load_tile(rows_ptr, finite, start, d, stride_d, CHANNELS) - centre[None, :]
    return tl.where(finite[:, None], tile, 0.0)


@triton.jit
def _axis(axes_ptr, number, start, d, CHANNELS: tl.constexpr):
    channels = start + tl.arange(0, CHANNELS)
    return tl.load(axes_ptr + number * d + channels, mask=channels < d, other=0.0).to(tl.float64)


@triton.jit
def scale_of(spread_ptr, d, CHANNELS: tl.constexpr):
    """2⁻ʳ of (8)."""
    spread = tl.zeros([CHANNELS], tl.float64)
    for start in range(0, d, CHANNELS):
        channels = start + tl.arange(0, CHANNELS)
        spread = tl.maximum(spread, tl.load(spread_ptr + channels, mask=channels < d, other=0.0))
    return inverse_power_of_two(tl.max(spread, 0))
