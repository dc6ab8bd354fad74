"""The tables of real data and of what is lost beside busy processes."""

from collections.abc import Sequence

from benchmarks.kernels.cells import milliseconds, percent, times_as
from benchmarks.kernels.load import BUSY
from benchmarks.kernels.measure_real import JUDGED
from benchmarks.kernels.pruned import ALL_CODES, EVALUATION, FIRST, TRAINING, rules_out
from benchmarks.kernels.results import RealRow, Slowdown
from benchmarks.kernels.rivals import FAISS
from benchmarks.sheets import NOTHING, Sheet

SEARCH = "Nearest code on real data"
STEP = "Training step on VQ latents"
LOAD = f"Beside {BUSY} busy processes"
TIMED = (FAISS, ALL_CODES, EVALUATION, TRAINING, FIRST)
EXPLANATIONS = {
    SEARCH: (
        "Median milliseconds, and how many times as fast as the bare matrix product of all vectors and codes. "
        "All codes: every vector is compared with every code. Evaluation: the codebook stays. Training: each code "
        "moves before each run by 1 % of the root mean square distance between vectors and codes. First call: the "
        "library has not seen the codebook. Build: first call less evaluation. Refit: training less evaluation. "
        "Share: percent of the pairs of a vector and a leaf of codes that the search in evaluation scored. Wrong: "
        f"percent of {JUDGED} indices that are not the nearest code's in float64, and of all indices that differ "
        "from those of comparing all codes."
    ),
    LOAD: (
        "Mean milliseconds of runs that follow each other without a pause, in the median of three turns, and how "
        f"many times as long they take beside {BUSY} processes that loop in Python."
    ),
}


def search_sheet(rows: Sequence[RealRow]) -> Sheet:
    """Return a table with a row per data set."""
    headings = ["data", "bare GEMM", *TIMED, "build", "refit", "share", "wrong"]
    return Sheet(SEARCH, headings, [_search_row(row) for row in rows])


def _search_row(row: RealRow) -> list[str]:
    return [
        f"{row.data}\n{row.shape}",
        milliseconds(row.times[row.gemm].median) if row.gemm else NOTHING,
        *(_time(row, name) for name in TIMED),
        *(_beyond_evaluation(row, name) for name in (FIRST, TRAINING)),
        percent(row.share),
        "\n".join(map(percent, (row.wrong, row.different))),
    ]


def _time(row: RealRow, name: str) -> str:
    if name not in row.times:
        return NOTHING
    median = row.times[name].median
    ratio = [times_as(row.times[row.gemm].median / median)] if row.gemm else []
    return "\n".join([milliseconds(median), *ratio])


def _beyond_evaluation(row: RealRow, name: str) -> str:
    """Return the milliseconds that a search takes more than one in evaluation that rules out codes; about zero if
    the difference is within the spread of the runs."""
    if not rules_out(row.share) or not {name, EVALUATION} <= row.times.keys():
        return NOTHING
    more, evaluation = row.times[name], row.times[EVALUATION]
    difference = more.median - evaluation.median
    return milliseconds(difference) if difference > 0 and not more.overlaps(evaluation) else "≈ 0"


def load_sheet(rows: Sequence[Slowdown]) -> Sheet:
    body = [[row.rival, milliseconds(row.alone), milliseconds(row.beside), times_as(row.factor)] for row in rows]
    return Sheet(LOAD, ["", "alone", "beside", "times as long"], body)
