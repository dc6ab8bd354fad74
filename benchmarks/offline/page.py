"""The table of the guide to codebooks fitted offline, from the JSON of a run."""

from collections.abc import Iterator
from typing import Any

from benchmarks.offline.summary import SAME
from benchmarks.offline.tables import seconds

HEADINGS = ("vectors", "other", "its error", "its time", "ours to that error", "lead")


def summary(record: dict[str, Any]) -> str:
    """Return the table in Markdown.

    For each size the other library with the least error (of equal ones the quicker), and the quickest of all.
    """
    lines = [HEADINGS, ("---",) * len(HEADINGS), *(row for cell in record["cells"] for row in _rows(cell))]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _rows(cell: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    by_name = {each["contender"]: each for each in cell["contenders"]}
    reached = {each["other"]: each for each in cell["reached"] if each["other"] in by_name}
    if not reached:
        return
    times = {name: float(by_name[name]["seconds"]) for name in reached}
    least = min(float(by_name[name]["inertia"]) for name in reached)
    best = [name for name in reached if by_name[name]["inertia"] <= (1 + SAME) * least]
    for name in dict.fromkeys([min(best, key=times.__getitem__), min(times, key=times.__getitem__)]):
        lead, time = reached[name]["lead"], reached[name]["seconds"]
        yield (
            _size(cell),
            name,
            f"{by_name[name]['inertia']:.4g}",
            f"{seconds(by_name[name]['seconds'])} s",
            f"{seconds(time)} s" if time else "not reached",
            f"{lead:.3g}x" if time else "",
        )


def _size(cell: dict[str, Any]) -> str:
    codes = f"{cell['codebooks']} × {cell['k']}" if cell["codebooks"] > 1 else str(cell["k"])
    kind = "" if cell["kind"] == "kmeans" else f", {cell['kind']}"
    return f"{cell['source']}{kind}, {cell['n']:,} × {cell['d']}, K {codes}"
