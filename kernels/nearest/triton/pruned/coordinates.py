"""Where rows and codes lie in few coordinates: the parts of leaves that rows fall in, and the boxes of leaves."""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from quantizers.kernels.common.triton.recording import launched
from quantizers.kernels.nearest.triton.frame import Frame, finite_rows
from quantizers.kernels.nearest.triton.pruned.order import COORDINATES, FEW_CHANNELS, PARTS, CodeOrder, axes_of
from quantizers.kernels.nearest.triton.pruned.projection import coordinates_of, scale_of

ROWS = 32  # at a time, or codes: no leaf has fewer
CHANNELS = 16  # of a step
_COORDINATES = tl.constexpr(COORDINATES)


class Placed(NamedTuple):
    """Where rows lie, in the order of the rows."""

    coordinates: Tensor  # [H, N, COORDINATES] float32, in units of the frame's power of two; zero if not finite
    part: Tensor  # [H, N] int32: the part of a leaf that the row falls in; their number if it is not finite


def place(x: Tensor, where: Frame, order: CodeOrder) -> Placed:
    """Return where the rows [H, N, D] lie."""
    heads, n, d = x.shape
    placed = Placed(
        x.new_empty((heads, n, COORDINATES), dtype=torch.float32), x.new_empty((heads, n), dtype=torch.int32)
    )
    nodes = order.planes.shape[1]
    _place[(triton.cdiv(n, ROWS), heads)](
        x,
        *x.stride(),
        where.centre,
        where.spread,
        order.axes,
        order.split_axes,
        order.planes,
        *placed,
        n,
        order.leaves * PARTS,
        nodes,
        (nodes + 1).bit_length() - 1,
        d,
        AXES=axes_of(d),
        DISTANCE=d > FEW_CHANNELS,
        ROWS=ROWS,
        CHANNELS=CHANNELS,
    )
    return placed


def leaf_boxes(codebook: Tensor, where: Frame, order: CodeOrder) -> Tensor:
    """Return the least and the largest coordinates of the finite codes of each leaf; without any, +inf and −inf.

    Returns: [2, H, COORDINATES, L] float32, in units of the frame's power of two.
    """
    heads, size, d = codebook.shape
    boxes = codebook.new_empty((2, heads, COORDINATES, order.leaves), dtype=torch.float32)
    _leaf_boxes[(order.leaves, heads)](
        codebook,
        *codebook.stride(),
        where.centre,
        where.spread,
        order.axes,
        order.codes,
        boxes,
        size,
        d,
        AXES=axes_of(d),
        DISTANCE=d > FEW_CHANNELS,
        LEAF=order.leaf,
        ROWS=ROWS,
        CHANNELS=CHANNELS,
    )
    return boxes


@launched
@triton.jit(
    do_not_specialize=["stride_xh", "stride_xn", "n", "parts", "nodes", "levels"],
    do_not_specialize_on_alignment=["stride_xd"],
)
def _place(
    x_ptr,
    stride_xh,
    stride_xn,
    stride_xd,
    centre_ptr,
    spread_ptr,
    axes_ptr,
    split_ptr,
    plane_ptr,
    coordinates_ptr,
    part_ptr,
    n,
    parts,
    nodes,
    levels,
    d,
    AXES: tl.constexpr,
    DISTANCE: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Coordinates of some rows, and their way down the tree."""
    head = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = row < n
    x_row_ptr = x_ptr + head * stride_xh + row * stride_xn
    finite = finite_rows(x_row_ptr, inside, d, stride_xd, CHANNELS)
    centre_ptr += head * d
    axes_ptr += head * _COORDINATES * d
    coordinates = coordinates_of(
        x_row_ptr, stride_xd, finite, centre_ptr, axes_ptr, d, AXES, DISTANCE, ROWS, CHANNELS
    )  # fmt: skip
    column = tl.arange(0, _COORDINATES)
    node = tl.zeros([ROWS], tl.int32)
    for _ in range(levels):
        axis = tl.load(split_ptr + head * nodes + node)
        value = tl.sum(tl.where(column[None, :] == axis[:, None], coordinates, 0.0), 1)
        node = 2 * node + 1 + (value >= tl.load(plane_ptr + head * nodes + node)).to(tl.int32)
    part = tl.where(finite, tl.minimum(node - nodes, parts - 1), parts)
    out = head * n + row
    tl.store(part_ptr + out, part, mask=inside)
    scaled = (coordinates * scale_of(spread_ptr + head * d, d, CHANNELS)).to(tl.float32)
    tl.store(coordinates_ptr + out[:, None] * _COORDINATES + column[None, :], scaled, mask=inside[:, None])


@launched
@triton.jit(do_not_specialize=["stride_ch", "stride_ck", "size"], do_not_specialize_on_alignment=["stride_cd"])
def _leaf_boxes(
    codes_ptr,
    stride_ch,
    stride_ck,
    stride_cd,
    centre_ptr,
    spread_ptr,
    axes_ptr,
    order_ptr,
    boxes_ptr,
    size,
    d,
    AXES: tl.constexpr,
    DISTANCE: tl.constexpr,
    LEAF: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """The box of one leaf."""
    head, heads = tl.program_id(1).to(tl.int64), tl.num_programs(1)
    leaf, leaves = tl.program_id(0), tl.num_programs(0)
    codes_ptr += head * stride_ch
    centre_ptr += head * d
    axes_ptr += head * _COORDINATES * d
    scale = scale_of(spread_ptr + head * d, d, CHANNELS)
    least = tl.full([_COORDINATES], float("inf"), tl.float32)
    largest = tl.full([_COORDINATES], float("-inf"), tl.float32)
    for start in range(0, LEAF, ROWS):
        code = tl.load(order_ptr + (head * leaves + leaf) * LEAF + start + tl.arange(0, ROWS))
        code_ptr = codes_ptr + code.to(tl.int64) * stride_ck
        finite = finite_rows(code_ptr, code < size, d, stride_cd, CHANNELS)
        coordinates = coordinates_of(
            code_ptr, stride_cd, finite, centre_ptr, axes_ptr, d, AXES, DISTANCE, ROWS, CHANNELS
        )  # fmt: skip
        scaled = (coordinates * scale).to(tl.float32)
        least = tl.minimum(least, tl.min(tl.where(finite[:, None], scaled, float("inf")), 0))
        largest = tl.maximum(largest, tl.max(tl.where(finite[:, None], scaled, float("-inf")), 0))
    out = (head * _COORDINATES + tl.arange(0, _COORDINATES)) * leaves + leaf
    tl.store(boxes_ptr + out, least)
    tl.store(boxes_ptr + heads.to(tl.int64) * _COORDINATES * leaves + out, largest)
