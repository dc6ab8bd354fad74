"""Masked tiles of rows × channels, and the conversions of 16-bit values."""

import triton
import triton.language as tl


@triton.jit
def load_tile(rows_ptr, inside, channel, d, stride_d, CHANNELS: tl.constexpr, DTYPE: tl.constexpr = tl.float64):
    """The channels from `channel` on of some rows, [R, CHANNELS] in DTYPE; zero outside.

    `rows_ptr` are pointers to the rows' first channels, [R]. `inside`, [R], says which rows to read; `d` is the
    number of their channels, and `stride_d` the distance between two of them.
    """
    channels = channel + tl.arange(0, CHANNELS)
    mask = inside[:, None] & (channels < d)[None, :]
    return converted(
        tl.load(rows_ptr[:, None] + channels.to(tl.int64)[None, :] * stride_d, mask=mask, other=0), DTYPE
    )


@triton.jit
def store_tile(rows_ptr, inside, channel, d, stride_d, tile, CHANNELS: tl.constexpr):
    """Store a tile [R, CHANNELS] in the dtype of its destination; places as for `load_tile`."""
    channels = channel + tl.arange(0, CHANNELS)
    mask = inside[:, None] & (channels < d)[None, :]
    places = rows_ptr[:, None] + channels.to(tl.int64)[None, :] * stride_d
    tl.store(places, converted(tile, rows_ptr.dtype.element_ty), mask=mask)


@triton.jit
def converted(value, DTYPE: tl.constexpr):
    """`value` in another floating dtype. Between float64 and 16 bits it passes through float32, as in PyTorch."""
    if value.dtype.is_fp64() != DTYPE.is_fp64():
        value = value.to(tl.float32)
    return value.to(DTYPE)
