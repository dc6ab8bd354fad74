"""Float32 matrices as sums of three bfloat16 ones, and their products on matrix units.

A float32 number has 24 significant bits, a bfloat16 number eight, and both have the same exponents: three pieces
are exact unless the last underflows. Of the nine products of pieces, six matter; the others are below 2⁻²² of the
product.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from quantizers.kernels.common.triton.loads import load_tile
from quantizers.kernels.common.triton.noise import code_order
from quantizers.kernels.common.triton.recording import launched

PIECES = 3
PADDING = 128  # packed rows, and columns beyond so many, are a multiple of this
ROWS = 32  # of a program that packs
CHUNK = 32  # columns of its step
_CHUNK, _ROWS, _PIECES = tl.constexpr(CHUNK), tl.constexpr(ROWS), tl.constexpr(PIECES)
_HIGH_BITS = tl.constexpr(-(2**16))  # of float32's: those that bfloat16 keeps
_LOG2_E = tl.constexpr(1.4426950408889634)


def padded_width(columns: int) -> int:
    """Return how many columns a packed matrix has."""
    if columns <= PADDING:
        return max(16, int(triton.next_power_of_2(columns)))
    return int(triton.cdiv(columns, PADDING)) * PADDING


def pack(rows: list[Tensor], codes: list[Tensor], bias: Tensor) -> tuple[list[Tensor], Tensor]:
    """Return the pieces of matrices of rows [N, *], then of codes [K, *], and bias [K] times log2 e; one launch.

    Codes are in the order of `code_order`. What is padded is zero, but −∞ for the bias.

    Returns: [3, R, C] each, in bfloat16 (float32 in the interpreter, whose products of bfloat16 are wrong), with R
    a multiple of PADDING and C of `padded_width`; and [R] float32.
    """
    matrices = [matrix.contiguous() for matrix in (*rows, *codes)]
    dtype = torch.float32 if bias.device.type == "cpu" else torch.bfloat16
    packed = []
    for matrix in matrices:
        shape = PIECES, triton.cdiv(matrix.shape[0], PADDING) * PADDING, padded_width(matrix.shape[1])
        packed.append(torch.empty(shape, dtype=dtype, device=bias.device))
    padded, padded_size = packed[0].shape[1], packed[-1].shape[1]
    packed_bias = torch.empty(padded_size, dtype=torch.float32, device=bias.device)
    _pack[(max(padded, padded_size) // ROWS, len(matrices))](
        tuple(matrices),
        tuple(packed),
        tuple(matrix.shape[1] for matrix in matrices),
        tuple(each.shape[2] for each in packed),
        bias.contiguous(),
        packed_bias,
        rows[0].shape[0],
        padded,
        bias.shape[0],
        padded_size,
        len(rows),
        len(matrices),
    )
    return packed, packed_bias


@launched
@triton.jit(do_not_specialize=["n", "size"])
def _pack(
    matrices,
    outs,
    columns,
    widths,
    bias_ptr,
    packed_bias_ptr,
    n,
    padded,
    size,
    padded_size,
    ROW_MATRICES: tl.constexpr,
    MATRICES: tl.constexpr,
):
    place = tl.program_id(0) * _ROWS + tl.arange(0, _ROWS)
    for i in tl.static_range(MATRICES):
        if tl.program_id(1) == i:
            count, stored, source = n, padded, place
            if i >= ROW_MATRICES:
                count, stored, source = size, padded_size, code_order(place)
            if tl.program_id(0) * _ROWS < stored:
                _pack_rows(matrices[i], outs[i], columns[i], widths[i], place, source, count, stored)
    if (tl.program_id(1) == MATRICES - 1) & (tl.program_id(0) * _ROWS < padded_size):
        source = code_order(place)
        bias = tl.load(bias_ptr + source, mask=source < size, other=-float("inf")).to(tl.float32)
        tl.store(packed_bias_ptr + place, bias * _LOG2_E)


@triton.jit
def _pack_rows(matrix_ptr, out_ptr, columns, width, place, source, count, stored):
    rows_ptr = matrix_ptr + source.to(tl.int64) * columns
    out_ptr += place.to(tl.int64) * width
    for start in range(0, width, _CHUNK):
        values = load_tile(rows_ptr, source < count, start, columns, 1, _CHUNK, tl.float32)
        channels = start + tl.arange(0, _CHUNK)
        inside = (channels < width)[None, :] & (place >= 0)[:, None]
        piece = split(values, out_ptr.dtype.element_ty)
        for i in tl.static_range(_PIECES):
            at = out_ptr + i * (stored.to(tl.int64) * width)
            tl.store(at[:, None] + channels[None, :], piece[i], mask=inside)


@triton.jit
def split(values, DTYPE: tl.constexpr):
    """Three pieces of eight bits whose sum is `values`, in DTYPE."""
    first = _top(values)
    rest = values - first
    second = _top(rest)
    return first.to(DTYPE), second.to(DTYPE), (rest - second).to(DTYPE)


@triton.jit
def _top(values):
    return (values.to(tl.int32, bitcast=True) & _HIGH_BITS).to(tl.float32, bitcast=True)


@triton.jit
def load_pieces(base_ptr, padded, first, column, ROWS: tl.constexpr, WIDTH: tl.constexpr, COLUMNS: tl.constexpr):
    """The pieces of ROWS rows from `first` on of a packed matrix with `padded` rows: COLUMNS of its WIDTH columns
    from `column` on."""
    # Only the pointer to the first differs between the steps of a loop.
    base_ptr += tl.cast(first, tl.int64) * WIDTH + column
    places = tl.arange(0, ROWS)[:, None] * WIDTH + tl.arange(0, COLUMNS)[None, :]
    piece = tl.cast(padded, tl.int64) * WIDTH
    return tl.load(base_ptr + places), tl.load(base_ptr + piece + places), tl.load(base_ptr + 2 * piece + places)


@triton.jit
def transposed(pieces):
    return pieces[0].T, pieces[1].T, pieces[2].T


@triton.jit
def add_product(sums, a, b):
    """sums + a·b of two matrices in pieces."""
    sums = tl.dot(a[2], b[0], sums)
    sums = tl.dot(a[1], b[1], sums)
    sums = tl.dot(a[0], b[2], sums)
    sums = tl.dot(a[1], b[0], sums)
    sums = tl.dot(a[0], b[1], sums)
    return tl.dot(a[0], b[0], sums)


@triton.jit
def product_tile(
    a, a_ptr, a_padded, a_first, b, b_ptr, b_padded, b_first,
    WIDTH: tl.constexpr, STEP: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """a·bᵀ [BLOCK_M, BLOCK_N] of consecutive rows of two packed matrices of WIDTH columns.

    Args:
        a, b: the rows' pieces, which are read from the pointers step by step if they have more than STEP columns.
    """
    sums = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    if WIDTH == STEP:
        sums = add_product(sums, a, transposed(b))
    else:
        for column in range(0, WIDTH, STEP):
            part = load_pieces(a_ptr, a_padded, a_first, column, BLOCK_M, WIDTH, STEP)
            other = load_pieces(b_ptr, b_padded, b_first, column, BLOCK_N, WIDTH, STEP)
            sums = add_product(sums, part, transposed(other))
    return sums
