"""Wrong indices, rows left to the exhaustive search, and the error of sums in a matrix unit.

The certificate (10) of kernels/nearest/README.md rests on a model of how a matrix unit adds. The parts called
"sums" compare the largest error of a score with this model; units.py measures the unit itself.
"""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from benchmarks.gpu.flash import wrong_by_flash
from benchmarks.gpu.implementations import (
    ACCUMULATION,
    BLOCK_N,
    ROUNDOFF,
    decided,
    nearest_code,
    scored,
    use_implementation,
)
from benchmarks.gpu.stages import Numbers, Phase, Place
from benchmarks.gpu.units import UNITS, measure_unit
from benchmarks.kernels.exactness import DATA, Data, Draw, cluster, right_rows
from benchmarks.kernels.shapes import Shape, draw

PRECISIONS = ("highest", "high", "medium")
EXACT = "highest"
JUDGED = 4096  # vectors of a large set whose indices are judged
TINY_ROWS, TINY_CODES = 32, 64  # in the interpreter
INTERPRETED = ("normal, K 8192", "collapsed", "two clusters at ±10⁶")  # the sets that it searches
SUMMED = 65536  # scores of a measurement of sums
WIDTHS = (8, 16, 64, 128, 256, 1024)


def scaled(factor: float) -> Draw:
    """Return a function that draws normal vectors and codes times `factor`."""
    return cluster(0, factor)


def _one_code(generator: Generator, k: int, d: int) -> tuple[Tensor, Tensor]:
    """All codes are equal: every row is left to the exhaustive search, and the lowest index is right."""
    x, codebook = cluster(0, 1)(generator, k, d)
    return x, codebook[:1].expand(k, d).contiguous()


def _far_apart(generator: Generator, k: int, d: int) -> tuple[Tensor, Tensor]:
    """Two clusters at ±10⁶ with a spread of 1: the difference of two scores is lost in each of them."""
    x, codebook = cluster(0, 1)(generator, k, d)
    for tensor in (x, codebook):
        tensor[::2] += 1e6
        tensor[1::2] -= 1e6
    return x, codebook


SETS = {
    f"{data.name}, K {data.k}, D {data.d}": data
    for data in (
        *DATA,
        Data("scaled by 1e-30", 1024, 64, scaled(1e-30)),
        Data("scaled by 1e-38, with denormal numbers", 1024, 64, scaled(1e-38)),
        Data("collapsed to one code", 1024, 64, _one_code),
        Data("two clusters at ±10⁶, spread 1", 1024, 64, _far_apart),
    )
}
LARGE = {
    f"normal {shape}": shape
    for shape in (Shape(65536, 16384, 64), Shape(32768, 16384, 256), Shape(65536, 65536, 16))
}


def _normal(d: int) -> tuple[Tensor, Tensor]:
    return torch.randn(SUMMED, d), torch.randn(32, d)


def _positive(d: int) -> tuple[Tensor, Tensor]:
    """Sums that grow, so that all truncations have one sign."""
    x, codes = _normal(d)
    return x.abs(), codes.abs()


def _lost(d: int) -> tuple[Tensor, Tensor]:
    """One product of 1 and D − 1 below its last bit, which a unit loses that keeps no further bits."""
    x = torch.full((SUMMED, d), (1 - 2.0**-10) * 2.0**-23)
    x *= 2.0 ** -torch.randint(0, 4, (SUMMED, 1))
    x[:, 0] = 1
    return x, torch.ones(1, d)


KINDS: dict[str, Callable[[int], tuple[Tensor, Tensor]]] = {
    "normal": _normal,
    "positive": _positive,
    "products below the last bit": _lost,
}
SUMS = {f"sums, {kind}, D {d}": (kind, d) for d in WIDTHS for kind in KINDS}


def phases(interpreted: bool, workers: int) -> list[Phase]:
    if not interpreted:
        return [Phase((*SETS, *LARGE, *SUMS, *UNITS), workers)]
    sums = [name for name, (_, d) in SUMS.items() if d == WIDTHS[0]]
    return [Phase((*(name for name in SETS if name.startswith(INTERPRETED)), *sums, *UNITS))]


def run(part: str, place: Place) -> Numbers:
    torch.set_float32_matmul_precision("highest")
    if part in SUMS:
        return measure_sums(*SUMS[part], place)
    if part in UNITS:
        return measure_unit(UNITS[part], place)
    x, codebook = _tensors(part, place)
    numbers = count_wrong(x, codebook)
    shares, failures = wrong_by_flash(x, codebook, slice(0, JUDGED))
    numbers["wrong_share"] |= shares
    return numbers | ({"failures": failures} if failures else {})


def _tensors(part: str, place: Place) -> tuple[Tensor, Tensor]:
    if part in LARGE:
        return draw(LARGE[part], place.device)
    x, codebook = SETS[part].tensors(place.device)
    return (x[:TINY_ROWS], codebook[:TINY_CODES]) if place.interpreted else (x, codebook)


def count_wrong(x: Tensor, codebook: Tensor) -> Numbers:
    """Return the share of rows that are compared with all codes, how many of the others are wrong, and the share
    of wrong indices in each precision.
    """
    judged = slice(0, JUDGED)
    certain, indices = decided(x, codebook)
    wrong = ~right_rows(indices[judged], x[judged], codebook)
    numbers: Numbers = {
        "rows": len(x[judged]),
        "left": float((~certain).float().mean()),
        "certain but wrong": int((certain[judged] & wrong).sum()),
        "wrong_share": {},
    }
    for precision in PRECISIONS:
        torch.set_float32_matmul_precision(precision)
        with use_implementation("triton"):
            found = nearest_code(x[None], codebook[None])[0][0]
        right = right_rows(found[judged], x[judged], codebook)
        numbers["wrong_share"][precision] = float((~right).float().mean())
    torch.set_float32_matmul_precision("highest")
    return numbers


def measure_sums(kind: str, d: int, place: Place) -> Numbers:
    """Measure the error of scores against the sums of (10), E = 1.01 u ((c C + 1) a R + (½c C + 1) t R²), c = 9/4.

    Codes come in pairs ±e, so that their centre is zero.

    Returns:
        share_of_bound: the largest error divided by E. The bound holds up to 1.
        needed: the smallest c that covers the largest error by itself, without the other terms.
        over_u: the largest error in units of u (a R + t R²).
    """
    x, half = KINDS[kind](d)
    if place.interpreted:
        x = x[:BLOCK_N]
    codebook = torch.cat([half, -half])
    found = scored(x.to(place.device), codebook.to(place.device))
    error = (found.score.double() - found.exact).abs()
    sums = ACCUMULATION * found.columns
    bound = 1.01 * ROUNDOFF * ((sums + 1) * found.product + (0.5 * sums + 1) * found.square)
    terms = found.product + 0.5 * found.square
    return {
        "share_of_bound": float((error / bound).max()),
        "needed": float((error / (ROUNDOFF * found.columns * terms)).max()),
        "over_u": float((error / (ROUNDOFF * (found.product + found.square))).max()),
        "constant": ACCUMULATION,
    }
