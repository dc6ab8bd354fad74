"""Times of the search's loop under other tile sizes than those that the launcher chooses.

A first phase compiles all of them, in many processes at once; the second times each shape's alone. Packing and
what follows the loop are left out.
"""

from collections.abc import Sequence
from itertools import product

import torch

from benchmarks.gpu.implementations import LoopTiles, PackedSearch
from benchmarks.gpu.stages import Numbers, Phase, Place
from benchmarks.kernels.rivals import Rival
from benchmarks.kernels.shapes import Shape, draw
from benchmarks.kernels.timing import LEAST, interleave, prepare_all

# One for each number of columns that the layouts have, and one with streamed rows.
SHAPES = (
    Shape(1048576, 8192, 8),
    Shape(524288, 16384, 29),
    Shape(262144, 16384, 64),
    Shape(262144, 16384, 128),
    Shape(262144, 16384, 256),
    Shape(131072, 16384, 512),
)
TINY = Shape(128, 256, 8)  # in the interpreter
# (rows, codes of a step, warps); columns of a step and stages follow below.
CUTS = ((128, 128, 8), (128, 256, 8), (256, 128, 8), (128, 128, 4), (64, 128, 4), (64, 256, 4), (128, 64, 4))
STAGES = (2, 3, 4)
STREAMED = (64, 128)  # columns of a step
WARM_ROWS = 512  # the number of rows is a run-time argument
BUDGET_S = 0.05  # of timed runs for each tile size, beyond the least number of runs
COMPILE, TIME = "compile ", "tiles "


def candidates(width: int, resident: bool, interpreted: bool) -> list[LoopTiles]:
    """Return the tile sizes to time for rows of this many columns."""
    steps = (width,) if resident else STREAMED
    cuts, stages = (CUTS[:2], STAGES[:1]) if interpreted else (CUTS, STAGES)
    return [LoopTiles(*cut, step, stage) for cut, step, stage in product(cuts, steps, stages)]


def phases(interpreted: bool, workers: int) -> list[Phase]:
    shapes = (TINY,) if interpreted else SHAPES
    compiled = [f"{COMPILE}{shape}, {i + 1} of {workers}" for shape in shapes for i in range(workers)]
    return [Phase(() if interpreted else tuple(compiled), workers), Phase(tuple(f"{TIME}{s}" for s in shapes))]


def run(part: str, place: Place) -> Numbers:
    torch.set_float32_matmul_precision("highest")
    kind = COMPILE if part.startswith(COMPILE) else TIME
    name, _, share = part.removeprefix(kind).partition(", ")
    shape = next(shape for shape in (TINY, *SHAPES) if str(shape) == name)
    if kind == TIME:
        return _times(shape, place)
    i, n = map(int, share.split(" of "))
    return _compile(Shape(WARM_ROWS, shape.k, shape.d), place, i - 1, n)


def _compile(shape: Shape, place: Place, i: int, n: int) -> Numbers:
    x, codebook = draw(shape, place.device)
    search = PackedSearch(x, codebook)
    shared = candidates(search.width, search.resident, place.interpreted)[i::n]
    return {"failures": prepare_all(_rivals(search, shared), x, codebook)[1]}


def _times(shape: Shape, place: Place) -> Numbers:
    """Return medians in milliseconds by tile sizes, the fastest first, and that of the launcher's choice."""
    x, codebook = draw(shape, place.device)
    search = PackedSearch(x, codebook)
    sizes = {search.chosen, *candidates(search.width, search.resident, place.interpreted)}
    times, failures = interleave(_rivals(search, sorted(sizes)), x, codebook, budget_s=BUDGET_S, least=LEAST)
    medians = sorted((each.median, name) for name, each in times.items())
    return {
        "chosen": str(search.chosen),
        "tiles_ms": {name: median for median, name in medians},
        "failures": failures,
    }


def _rivals(search: PackedSearch, sizes: Sequence[LoopTiles]) -> list[Rival]:
    """The loop in these tile sizes; the vectors are packed already."""
    return [Rival(str(each), lambda *_, each=each: lambda: search.run(each)) for each in sizes]
