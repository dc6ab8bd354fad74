"""The table of searches on a GPU for docs/results/speed.md. It comes from the JSON, so that the two agree."""

from typing import Any

from benchmarks.gpu.contenders import PRODUCTS
from benchmarks.gpu.speed import SEARCH
from benchmarks.kernels.rivals import ADDMM, CDIST, OURS, OURS_HIGH, OURS_MEDIUM
from benchmarks.sheets import NOTHING, Sheet, markdown_rows

# This library's as CUDA graphs, under their names in SEARCHED.
COLUMNS = {
    "exact": f"{OURS}, graph",
    "high": f"{OURS_HIGH}, graph",
    "medium": f"{OURS_MEDIUM}, graph",
    ADDMM: ADDMM,
    CDIST: CDIST,
    **{rival.name: rival.name for rival in PRODUCTS},
}


def summary(record: dict[str, Any]) -> str:
    """Return Markdown: medians in milliseconds of each search that was measured.

    Args: record: the output of `python -m benchmarks gpu`.
    """
    body = [
        [
            part.removeprefix(SEARCH).replace("x", " × "),
            *(_milliseconds(numbers, name) for name in COLUMNS.values()),
        ]
        for part, numbers in record["stages"]["speed"]["parts"].items()
        if part.startswith(SEARCH) and "times_ms" in numbers
    ]
    return "\n".join(markdown_rows(Sheet("", ["N × K × D", *COLUMNS], body)))


def worst_shares(record: dict[str, Any], start: str = "") -> dict[str, float]:
    """Return, by precision, the largest share of wrong indices over the sets whose name has this start."""
    worst: dict[str, float] = {}
    for part, numbers in record["stages"]["exact"]["parts"].items():
        for name, share in numbers.get("wrong_share", {}).items() if part.startswith(start) else ():
            worst[name] = max(share, worst.get(name, 0.0))
    return worst


def _milliseconds(numbers: dict[str, Any], name: str) -> str:
    return f"{numbers['times_ms'][name]['median']:.3g}" if name in numbers["times_ms"] else NOTHING
