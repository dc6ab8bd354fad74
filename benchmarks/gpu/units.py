"""How a matrix unit adds: one small product, without a search around it.

A term of 1 and a term of −1 stand beside small terms p = 2^−(21 + b), b = 0 … 15, so that what remains of p tells
to which bit the unit aligned the terms of this sum. The 1 is a product or the accumulator, and so are −1 and p.
All values are multiplied by 2¹⁴, so that no operand is denormal in float16. The model of such a sum in
kernels/nearest/README.md cuts every term off below 2^−23 of the largest.
"""

from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from benchmarks.gpu.stages import Numbers, Place

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "tf32": torch.float32}
UNITS = {f"matrix unit, {kind}": kind for kind in DTYPES}
ALL = "all"  # bits kept: even of the smallest p
ROWS, WIDTH, SMALL = 64, 64, 16  # rows and columns of the product, and numbers of b
LARGE, SCALE = 2.0**7, 2.0**14  # an operand of the products ±1, and that product
LAST = 2.0**-23  # the last bit of 1
FIRST = 21  # of the exponents of p
TRUNCATED, ROUNDED, FLOORED, UNKNOWN = "truncated", "rounded", "floored", "unknown"

# (x [ROWS, WIDTH], codes [SMALL, WIDTH], sums [ROWS, SMALL]) → x · codesᵀ + sums, float64 tensors
Dot = Callable[[Tensor, Tensor, Tensor], Tensor]


@triton.jit
def _dot_kernel(  # type: ignore[no-untyped-def]
    x_ptr, codes_ptr, sums_ptr, out_ptr, ROWS: tl.constexpr, SMALL: tl.constexpr, WIDTH: tl.constexpr
):
    row, column, code = tl.arange(0, ROWS), tl.arange(0, WIDTH), tl.arange(0, SMALL)
    x = tl.load(x_ptr + row[:, None] * WIDTH + column[None, :])
    codes = tl.load(codes_ptr + code[:, None] * WIDTH + column[None, :])
    cells = row[:, None] * SMALL + code[None, :]
    sums = tl.load(sums_ptr + cells)
    found = tl.dot(x, tl.trans(codes), sums, input_precision="tf32", out_dtype=sums.dtype)
    tl.store(out_ptr + cells, found)


def unit_of(kind: str, place: Place) -> Dot:
    """Return the product in the matrix unit of the device. The interpreter multiplies the same values in float64,
    which makes every sum exact, and rounds it once: numpy's own sums of float32 depend on their order."""
    dtype = torch.float64 if place.interpreted else DTYPES[kind]
    wide = torch.float64 if place.interpreted else torch.float32

    def dot(x: Tensor, codes: Tensor, sums: Tensor) -> Tensor:
        operands = [tensor.to(place.device, dtype).contiguous() for tensor in (x, codes)]
        out = torch.empty(ROWS, SMALL, device=place.device)
        _dot_kernel[(1,)](*operands, sums.to(place.device, wide), out, ROWS, SMALL, x.shape[1], num_warps=4)
        return out.double().cpu()

    return dot


def measure_unit(kind: str, place: Place) -> Numbers:
    return derive(unit_of(kind, place))


def derive(dot: Dot) -> Numbers:
    """Return how a unit adds, from what remains of small terms.

    kept   bits below 2^−23 of the largest term to which a small term is kept, by what is in the accumulator:
           "none": all terms are products; "large": the 1; "small": p. "all" if even p = 2^−36 is kept, None if
           not even 2^−21 is
    alike  whether these three are equal
    cut    what happens to a term's further bits: truncated (towards zero), floored or rounded
    alone  whether each product is cut before any two are added
    step   products that are added at once, as far as it shows: a sum that goes on is cut off at its own last bit
    end    what happens to the sum's bits below its last one: truncated or rounded
    left   what remained, in units of 2^−23, of each kind of small terms, by b
    """
    left = {name: _left(dot, *terms) for name, terms in _experiments().items()}
    kept = {where: _kept(left[name]) for where, name in SINGLE.items()}
    bits = kept["none"]
    return {
        "kept": kept,
        "alike": len(set(kept.values())) == 1,
        "cut": _cut(left, bits),
        "alone": None if not isinstance(bits, int) or bits + 3 >= SMALL else float(left["two"][bits + 3]) == 0,
        "step": _step(dot, bits),
        "end": _end(dot, bits),
        "left": {name: values.tolist() for name, values in left.items()},
    }


SINGLE = {"none": "one", "large": "one beside the accumulator", "small": "the accumulator"}


def _experiments() -> dict[str, tuple[list[float], float, float]]:
    """Return the small terms' factors in units of p, and the accumulator's value: a multiple of p, and of 1.

    The products 1 and −1 come first. Where the accumulator is the 1, they are −½ and −½: a unit that aligns the
    products among themselves then keeps one bit more.
    """
    rest = 16 - 2  # of the columns of one step of a unit
    return {
        "one": ([1], 0, 0),
        "one, times 1.5": ([1.5], 0, 0),
        "one, times -1.5": ([-1.5], 0, 0),
        "one beside the accumulator": ([1], 0, 1),
        "the accumulator": ([], 1, 0),
        "the accumulator, times 1.5": ([], 1.5, 0),
        "two": ([1, 1], 0, 0),
        "many": ([1] * rest, 0, 0),
        "many of alternating sign": ([1, -1] * (rest // 2), 0, 0),
        "many, times 1.5": ([1.5] * rest, 0, 0),
        "many beside the accumulator": ([1] * rest, 0, 1),
        "many of alternating sign beside the accumulator": ([1, -1] * (rest // 2), 0, 1),
        "many, times 1.5, beside the accumulator": ([1.5] * rest, 0, 1),
    }


def _smallest() -> Tensor:
    """Return p [SMALL]."""
    return 2.0 ** -(FIRST + torch.arange(SMALL, dtype=torch.float64))


def _keeps_less_than(bits: int | str | None, least: int) -> bool:
    return bits is None or (isinstance(bits, int) and bits < least)


def _left(dot: Dot, factors: list[float], small: float, large: float) -> Tensor:
    """Return what remains of the small terms [SMALL], in units of 2^−23."""
    x, codes, sums = _zeros()
    x[:, 0], x[:, 1] = (-LARGE / 2, -LARGE / 2) if large else (LARGE, -LARGE)
    codes[:, :2] = LARGE
    _put(x, codes, range(2, 2 + len(factors)), factors)
    sums += SCALE * (large + small * _smallest())
    return _scaled(dot(x[:, :16], codes[:, :16], sums))[0] / LAST


def _zeros() -> tuple[Tensor, Tensor, Tensor]:
    sizes = ((ROWS, WIDTH), (SMALL, WIDTH), (ROWS, SMALL))
    x, codes, sums = (torch.zeros(size, dtype=torch.float64) for size in sizes)
    return x, codes, sums


def _put(x: Tensor, codes: Tensor, columns: range, factors: list[float]) -> None:
    """Let the products of these columns be p times the factors. 2^−9 and p · 2^23 are exact in all dtypes."""
    for column, factor in zip(columns, factors, strict=True):
        x[:, column] = factor * 2.0**-9
        codes[:, column] = SCALE * 2.0**9 * _smallest()


def _scaled(found: Tensor) -> Tensor:
    return found / SCALE


def _kept(left: Tensor) -> int | str | None:
    """Return the bits below 2^−23 to which one p is kept."""
    whole = left == _smallest() / LAST
    count = int(whole.long().cumprod(0).sum())
    return ALL if count == SMALL else FIRST + count - 1 - 23 if count else None


def _cut(left: dict[str, Tensor], bits: int | str | None) -> str | None:
    """Return what becomes of ¾ of the last bit that is kept: 1.5 p for the first p that is not."""
    if not isinstance(bits, int):
        return None
    first = bits + 23 - FIRST + 1
    bit = 2.0**-bits
    positive, negative = (float(left[f"one, times {factor}"][first]) / bit for factor in (1.5, -1.5))
    kinds = {(0, 0): TRUNCATED, (1, -1): ROUNDED, (0, -1): FLOORED}
    return kinds.get((positive, negative), UNKNOWN)


def _step(dot: Dot, bits: int | str | None) -> int | None:
    """Return the number of columns for which −1 still meets a p below the last bit of the sum with 1.

    p is in the second column, and −1 in a later one, another in each row. None if no p below the last bit is kept.
    """
    if _keeps_less_than(bits, 1):
        return None
    x, codes, sums = _zeros()
    codes[:] = LARGE
    x[:, 0] = LARGE
    _put(x, codes, range(1, 2), [1])
    rows = torch.arange(2, WIDTH)
    x[rows, rows] = -LARGE
    b = 24 - FIRST  # p = 2^−24
    return 2 + int((_scaled(dot(x, codes, sums))[2:, b] == _smallest()[b]).sum())


def _end(dot: Dot, bits: int | str | None) -> str | None:
    """Return what becomes of 1 + 1.5 · 2^−23 and of its negative, or None if the term's last bit is cut off."""
    if _keeps_less_than(bits, 1):
        return None
    x, codes, sums = _zeros()
    b = 23 - FIRST
    x[0, 0], x[1, 0] = LARGE, -LARGE
    codes[:, 0] = LARGE
    _put(x, codes, range(1, 2), [1.5])
    x[1, 1] = -x[1, 1]
    positive, negative = ((_scaled(dot(x[:, :16], codes[:, :16], sums))[:2, b].abs() - 1) / LAST).tolist()
    kinds = {(1, 1): TRUNCATED, (2, 2): ROUNDED, (1, 2): FLOORED}
    return kinds.get((positive, negative), UNKNOWN)
