"""This library against faiss, method by method, on the same vectors at the same rate."""

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.search.coders import FAISS, OURS
from benchmarks.seeds import Column
from benchmarks.sheets import Sheet
from benchmarks.sweep.cuts import Mean, mean

Rows = list[dict[str, Any]]
Show = Callable[[Mean | None, str], str]  # the text of a mean over seeds in a format
COLUMNS = (
    Column("error", "error", ".3f"),
    Column("recall@1", "recall_1", ".3f"),
    Column("recall@10", "recall_10", ".3f"),
    Column("seconds to fit", "fit_seconds", ".2f"),
    Column("seconds to encode", "encode_seconds", ".2f"),
)
EXPLANATION = (
    "The comparison divides each number of this library by faiss's for the same method, vectors, rate and seed. "
    "Each cell is the mean of these ratios, with the lowest and the highest in parentheses."
)


def sheets(rows: Rows, show: Show) -> list[Sheet]:
    """Return a table with a row for each method that both libraries have; no table if there is none."""
    found = ratios(rows)
    lines = [[method, *cells(pairs, COLUMNS, show)] for method, pairs in found.items()]
    title = f"{OURS} ÷ {FAISS}"
    return [Sheet(title, ["", *(column.heading for column in COLUMNS)], lines)] if lines else []


def ratios(rows: Rows) -> dict[str, Rows]:
    """Return ours ÷ faiss for each method of both: a row for each kind, rate and seed.

    A number has no ratio, None, where faiss's is zero.
    """
    theirs = {_place(row): row for row in rows if row["library"] == FAISS}
    found: dict[str, Rows] = {}
    for row in rows:
        other = theirs.get(_place(row))
        if row["library"] == OURS and other is not None:
            pair = {key: row[key] / other[key] if other[key] else None for _, key, *_ in COLUMNS}
            found.setdefault(row["method"], []).append(pair)
    return found


def cells(rows: Rows, columns: Sequence[Column], show: Show) -> list[str]:
    """Return the means of each column."""
    return [show(mean(rows, column.key, column.scale), column.form) for column in columns]


def _place(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["kind"], row["seed"], row["bits"], row["method"]
