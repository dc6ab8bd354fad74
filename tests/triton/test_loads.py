"""Masked tiles against padded slices."""

import torch
import triton
import triton.language as tl
from hypothesis import given
from hypothesis import strategies as st

from quantizers.kernels.common.triton.loads import load_tile, store_tile
from tests.effort import examples
from tests.triton.interpreter import device, runs_kernels

pytestmark = runs_kernels

ROWS, CHANNELS = 4, 8


@triton.jit
def _copy(
    x_ptr,
    out_ptr,
    n,
    channel,
    d,
    stride_n,
    stride_d,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
    DTYPE: tl.constexpr,
):
    rows, all_rows = tl.arange(0, ROWS), tl.full([ROWS], True, tl.int1)
    tile = load_tile(x_ptr + rows * stride_n, rows < n, channel, d, stride_d, CHANNELS, DTYPE)
    store_tile(out_ptr + rows * CHANNELS, all_rows, 0, CHANNELS, 1, tile, CHANNELS)


@examples(20)
@given(
    n=st.integers(0, ROWS),
    d=st.integers(1, 11),
    channel=st.sampled_from([0, 1, 8]),
    transposed=st.booleans(),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
)
def test_a_tile_is_a_slice_with_zeros_around_it(
    n: int, d: int, channel: int, transposed: bool, dtype: torch.dtype
) -> None:
    x = (torch.randn(d, ROWS).T if transposed else torch.randn(ROWS, d)).to(dtype).to(device())
    wide = torch.promote_types(dtype, torch.float32)
    out = torch.empty(ROWS, CHANNELS, dtype=wide, device=device())
    load = tl.float64 if dtype == torch.float64 else tl.float32
    _copy[(1,)](x, out, n, channel, d, *x.stride(), ROWS, CHANNELS, load)
    expected = torch.zeros(ROWS, CHANNELS, dtype=wide)
    inside = x[:n, channel : channel + CHANNELS].to(wide)
    expected[: inside.shape[0], : inside.shape[1]] = inside.cpu()
    assert torch.equal(out.cpu(), expected)


def test_float64_becomes_float16_as_in_torch() -> None:
    """Rounded to float32 first: 1 + u + 1e-12 is a tie only after that."""
    x = 1 + 2.0**-11 * torch.arange(ROWS * CHANNELS, dtype=torch.float64).view(ROWS, CHANNELS) + 1e-12
    out = torch.empty(ROWS, CHANNELS, dtype=torch.float16, device=device())
    _copy[(1,)](x.to(device()), out, ROWS, 0, CHANNELS, CHANNELS, 1, ROWS, CHANNELS, tl.float64)
    assert torch.equal(out.cpu(), x.float().half())
