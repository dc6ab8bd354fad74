"""The nearest code of each row from its best groups, and the list of rows that need every code.

Equation (11) of kernels/nearest/README.md.
"""

import triton
import triton.language as tl
from torch import Tensor

from quantizers.kernels.common.triton.recording import launched
from quantizers.kernels.nearest.triton.candidates import nearest_candidate, packed_scores
from quantizers.kernels.nearest.triton.certificate import score_error
from quantizers.kernels.nearest.triton.exhaustive import Rows
from quantizers.kernels.nearest.triton.frame import Frame
from quantizers.kernels.nearest.triton.lookup import Found, look_up
from quantizers.kernels.nearest.triton.minima import combine_columns, empty_state, insert
from quantizers.kernels.nearest.triton.pack import PackedCodes, PackedRows, Permutation
from quantizers.kernels.nearest.triton.search import Minima
from quantizers.kernels.nearest.triton.tiles import CLASSES, Bound, Layout, Tiles

SPLITS = 16  # merged at a time
CHUNK = 16  # columns of packed codes in a step
ELEMENTS = 1024  # of packed codes in a step: 32 numbers per thread
CHANNELS = 64  # of vectors in a step
WARPS = 1  # exchanges within a warp need no barrier
REGISTERS = 128  # per thread at most: sixteen blocks a multiprocessor hide the latency of their gathers
_CLASSES = tl.constexpr(CLASSES)
_NONE = tl.constexpr(2**31 - 1)  # instead of an index


def settle(
    minima: Minima,
    packed: PackedRows,
    packed_codes: PackedCodes,
    x: Tensor,
    codebook: Tensor,
    where: Frame,
    limit: Bound | None,
    cut: Layout,
    tiles: Tiles,
    left: Rows,
    found: Found,
    first: int,
    order: Permutation | None = None,
) -> None:
    """Write the results of the rows of [H, N, D] that their best groups settle, and append the others to `left`.

    Args:
        limit: the coefficients of the error of a score; None: errors are ignored and no row is left.
        first: position of the first row in `found`.
        order: the order of packed rows and codes; None: their own.
    """
    heads, n, d = x.shape
    rows = rows_of(tiles.block_k)
    error = limit or Bound(0.0, 0.0)
    _settle[(triton.cdiv(n, rows), heads)](
        *minima,
        *packed,
        *packed_codes,
        where.lengths,
        x,
        *x.stride(),
        codebook,
        *codebook.stride(),
        left.listed,
        left.number,
        *found,
        *(order or (None, None)),
        n,
        packed.factor.shape[1],
        packed_codes.half_squares.shape[1],
        minima.scores.shape[1],
        d,
        first,
        found.indices.shape[1],
        error.product,
        error.square,
        CERTIFY=limit is not None,
        CODES=found.codes.dim() == 3,
        BIAS=not cut.bias_columns,
        COLUMNS=cut.width,
        BLOCK_K=tiles.block_k,
        ROWS=rows,
        SPLITS=SPLITS,
        CHUNK=CHUNK,
        CHANNELS=CHANNELS,
        num_warps=WARPS,
        maxnreg=REGISTERS,
        enable_fp_fusion=True,
    )


def rows_of(block_k: int) -> int:
    """Return the rows of a program, by the codes of a step of the search."""
    return ELEMENTS // (block_k // CLASSES * CHUNK)


@triton.jit
def _members(group, BLOCK_K: tl.constexpr, MEMBERS: tl.constexpr):
    """The codes [R, MEMBERS] of each group [R], in ascending order."""
    member = tl.arange(0, MEMBERS)
    first = group // _CLASSES * BLOCK_K + group % _CLASSES * 2
    return first[:, None] + (member // 2 * (2 * _CLASSES) + member % 2)[None, :]


@triton.jit
def _merged(score_ptr, group_ptr, inside, slot, stride, splits, ROWS: tl.constexpr, SPLITS: tl.constexpr):
    """The state [ROWS] of minima.py over all splits of the codes."""
    best, second, third, fourth, group_1, group_2, group_3 = empty_state(ROWS, SPLITS)
    for start in range(0, splits, SPLITS):
        split = start + tl.arange(0, SPLITS)
        mask = inside[:, None] & (split < splits)[None, :]
        place = split.to(tl.int64)[None, :] * stride + slot[:, None]
        for rank in tl.static_range(3):
            value = tl.load(score_ptr + rank * splits * stride + place, mask=mask, other=float("inf"))
            group = tl.load(group_ptr + rank * splits * stride + place, mask=mask, other=0)
            best, second, third, fourth, group_1, group_2, group_3 = insert(
                best, second, third, fourth, group_1, group_2, group_3, value, group
            )
        value = tl.load(score_ptr + 3 * splits * stride + place, mask=mask, other=float("inf"))
        fourth = tl.minimum(fourth, value)
    return combine_columns(best, second, third, fourth, group_1, group_2, group_3)


@triton.jit
def _near(scores, error):
    """The candidates: whose scores are within 2E [ROWS] of the smallest; none of a row without a finite score."""
    smallest = tl.min(scores, 1)
    return (scores < float("inf")) & (scores <= (smallest + 2 * error)[:, None])


@triton.jit
def _side_by_side(one, two, three, none, ROWS: tl.constexpr, MEMBERS: tl.constexpr):
    """[ROWS, 4 · MEMBERS] of three tensors [ROWS, MEMBERS], and one that fills the rest."""
    all_four = tl.join(tl.join(one, two), tl.join(three, none))
    return tl.reshape(all_four, [ROWS, 4 * MEMBERS])


@launched
@triton.jit(
    do_not_specialize=[
        "stride_xh", "stride_xn", "stride_ch", "stride_ck",
        "n", "padded", "padded_size", "splits", "first", "total",
    ],
    do_not_specialize_on_alignment=["stride_xd", "stride_cd"],
)  # fmt: skip
def _settle(
    score_ptr,
    group_ptr,
    x_columns_ptr,
    length_ptr,
    residual_ptr,
    factor_ptr,
    e_columns_ptr,
    e_half_ptr,
    lengths_ptr,
    x_ptr,
    stride_xh,
    stride_xn,
    stride_xd,
    codes_ptr,
    stride_ch,
    stride_ck,
    stride_cd,
    listed_ptr,
    count_ptr,
    indices_ptr,
    chosen_ptr,
    distance_ptr,
    row_order_ptr,
    code_order_ptr,
    n,
    padded,
    padded_size,
    splits,
    d,
    first,
    total,
    product_error,
    square_error,
    CERTIFY: tl.constexpr,
    CODES: tl.constexpr,
    BIAS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    ROWS: tl.constexpr,
    SPLITS: tl.constexpr,
    CHUNK: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    head, heads = tl.program_id(1).to(tl.int64), tl.num_programs(1)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = row < n
    slot = head * padded + row
    stride = heads.to(tl.int64) * padded
    best, second, third, fourth, group_1, group_2, group_3 = _merged(
        score_ptr, group_ptr, inside, slot, stride, splits, ROWS, SPLITS
    )
    length = tl.load(length_ptr + slot, mask=inside, other=float("inf"))
    found = (length < float("inf")) & (best < float("inf"))
    factor = tl.load(factor_ptr + slot, mask=inside, other=1.0)
    if CERTIFY:
        residual = tl.load(residual_ptr + slot, mask=inside, other=0.0)
        error = score_error(
            tl.where(found, length, 0.0), residual, factor, lengths_ptr, head, heads, product_error, square_error
        )
        base = tl.where(found, best, 0.0)
        left = found & ~(fourth - base > 2 * error)
        also_2, also_3 = found & ~left & ~(second - base > 2 * error), found & ~left & ~(third - base > 2 * error)
    else:
        error = tl.zeros([ROWS], tl.float32)
        left, also_2, also_3 = found & False, found & (second == best), found & (third == best)
    decided = found & ~left
    MEMBERS: tl.constexpr = BLOCK_K // _CLASSES
    x_packed_ptr = x_columns_ptr + slot * COLUMNS
    e_columns_ptr += head * padded_size * COLUMNS
    e_half_ptr += head * padded_size
    if row_order_ptr is not None:
        row = tl.load(row_order_ptr + head * n + row, mask=inside, other=0)
    x_row_ptr = x_ptr + head * stride_xh + row * stride_xn
    codes_ptr += head * stride_ch
    code_1 = _members(tl.where(decided, group_1, 0), BLOCK_K, MEMBERS)
    scores_1 = packed_scores(
        x_packed_ptr, factor, e_columns_ptr, e_half_ptr, code_1, decided, BIAS, COLUMNS, ROWS, MEMBERS, CHUNK
    )  # fmt: skip
    if tl.max(also_2.to(tl.int32), 0) > 0:
        code_2 = _members(tl.where(also_2, group_2, 0), BLOCK_K, MEMBERS)
        scores_2 = packed_scores(
            x_packed_ptr, factor, e_columns_ptr, e_half_ptr, code_2, also_2, BIAS, COLUMNS, ROWS, MEMBERS, CHUNK
        )  # fmt: skip
        code_3 = _members(tl.where(also_3, group_3, 0), BLOCK_K, MEMBERS)
        scores_3 = packed_scores(
            x_packed_ptr, factor, e_columns_ptr, e_half_ptr, code_3, also_3, BIAS, COLUMNS, ROWS, MEMBERS, CHUNK
        )  # fmt: skip
        nothing = tl.full([ROWS, MEMBERS], float("inf"), tl.float32)
        scores = _side_by_side(scores_1, scores_2, scores_3, nothing, ROWS, MEMBERS)
        code = _side_by_side(code_1, code_2, code_3, code_1, ROWS, MEMBERS)
        if code_order_ptr is not None:
            code = tl.load(code_order_ptr + head * padded_size + code)
        index = nearest_candidate(
            x_row_ptr, stride_xd, codes_ptr, stride_ck, stride_cd, code, _near(scores, error), d, ROWS, CHANNELS
        )  # fmt: skip
    else:
        near = _near(scores_1, error)
        if code_order_ptr is not None:
            code_1 = tl.load(code_order_ptr + head * padded_size + code_1)
        index = nearest_candidate(
            x_row_ptr, stride_xd, codes_ptr, stride_ck, stride_cd, code_1, near, d, ROWS, CHANNELS
        )  # fmt: skip
    index = tl.where(index == _NONE, -1, index)
    out = head * total + first + row
    look_up(
        x_row_ptr, stride_xd, codes_ptr, stride_ck, stride_cd, index.to(tl.int64), out, inside & ~left,
        indices_ptr, chosen_ptr, distance_ptr, d, CODES, ROWS, CHANNELS,
    )  # fmt: skip
    if CERTIFY:
        number = left.to(tl.int32)
        many = tl.sum(number, 0)
        if many > 0:
            # The order of the list depends on the programs' order; what becomes of a row does not.
            place = tl.atomic_add(count_ptr + head, many) + tl.cumsum(number, 0) - 1
            tl.store(listed_ptr + head * n + place, row, mask=left)
