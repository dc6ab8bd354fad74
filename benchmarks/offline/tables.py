"""The tables on the terminal and in Markdown."""

from collections.abc import Sequence

from benchmarks.kernels.cells import times_as
from benchmarks.offline.cells import KMEANS, Cell
from benchmarks.offline.summary import Line, Reach, reach, rivals
from benchmarks.sheets import NOTHING, Sheet

SEEDED = "Same seeds, same number of iterations"
CALLED = "As their users call them"
REACHED = "Seconds to the inertia of the others"
EXPLANATIONS = {
    SEEDED: (
        "Every contender starts at the same random distinct vectors and takes the same number of iterations over "
        "all vectors. Per pass: seconds of the whole call, divided by how often it assigns all vectors to codes. "
        "scikit-learn and this library do so once more after the last iteration, for labels and for the report."
    ),
    CALLED: (
        "faiss and `quantizers.fit` with their defaults, which for faiss are 25 iterations on at most 256 vectors "
        "per code, and otherwise with the named option or method. scikit-learn with k-means++ and until the codes "
        "settle. The others that read all vectors in each iteration take at most 25 of them, or 6·10¹¹ "
        "multiplications if these are fewer. Passes: over all vectors. Inertia: mean squared distance of all "
        "vectors from their nearest codes in float64, by one function for all; with several codebooks, from what "
        "the library's own indices decode to. Memory: the highest resident memory during the call, beyond what "
        "the process had with the vectors loaded."
    ),
    REACHED: (
        "From the start of our fit to the end of the first assignment of all vectors whose inertia is no larger "
        "than what the other contender ends with. Lead: the other's time divided by ours; 0 if ours ends with a "
        "larger inertia."
    ),
}


def sheets(found: Sequence[Line]) -> list[Sheet]:
    """Return the tables that have measurements."""
    seeded = [line for line in found if line.contender.from_seeds]
    users = [line for line in found if not line.contender.from_seeds]
    made = [_sheet(SEEDED, seeded)] if seeded else []
    if users:
        made.append(_sheet(CALLED, users))
    reached = [_reach_row(each) for line in _all_rivals(found) if (each := reach(found, line))]
    if reached:
        made.append(Sheet(REACHED, ["cell", "other", "its inertia", "its s", "ours", "our s", "lead"], reached))
    return made


def size(cell: Cell) -> str:
    """Return a cell in one line, as "text, residual, 100000 × 64, K 4 × 256"."""
    kind = "" if cell.kind == KMEANS else f", {cell.kind}"
    codes = f"{cell.codebooks} × {cell.k}" if cell.codebooks > 1 else str(cell.k)
    return f"{cell.source}{kind}, {cell.n} × {cell.d}, K {codes}"


def _sheet(title: str, found: Sequence[Line]) -> Sheet:
    per_pass = title == SEEDED
    headings = ["cell", "contender", "s", "s per pass" if per_pass else "passes", "inertia", "MiB", "runs"]
    return Sheet(title, headings, [_row(line, per_pass) for line in found])


def _row(line: Line, per_pass: bool) -> list[str]:
    passes = seconds(line.per_pass) if per_pass else str(line.passes or NOTHING)
    return [
        size(line.cell),
        line.contender.name,
        seconds(line.seconds),
        passes,
        f"{line.inertia:.5g}",
        NOTHING if line.peak_bytes is None else f"{line.peak_bytes / 2**20:.0f}",
        str(line.rounds),
    ]


def _reach_row(each: Reach) -> list[str]:
    return [
        size(each.cell),
        each.rival.contender.name,
        f"{each.rival.inertia:.5g}",
        seconds(each.rival.seconds),
        each.ours or NOTHING,
        seconds(each.seconds),
        times_as(each.lead),
    ]


def seconds(value: float | None) -> str:
    """Format with three digits."""
    return NOTHING if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _all_rivals(found: Sequence[Line]) -> list[Line]:
    return [line for cell in dict.fromkeys(line.cell for line in found) for line in rivals(found, cell)]
