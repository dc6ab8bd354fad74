"""The table of a measurement of the host's time."""

from typing import Any

from benchmarks.kernels.rivals import PEER
from benchmarks.sheets import NOTHING, Sheet

HEADINGS = ["call", "kernels of Triton", "µs", "µs without replay", f"{PEER} µs", "ratio"]


def sheet(result: dict[str, Any]) -> Sheet:
    """Return the table of a result of `run`: a row for each call of this library."""
    peers = {row["against"]: row for row in result["calls"] if row["name"] != row["against"]}
    ours = [row for row in result["calls"] if row["name"] == row["against"]]
    title = (
        f"The host's time for a call at {result['shape']}, without launches; medians of {result['rounds']} rounds"
    )
    return Sheet(title, HEADINGS, [_row(each, peers.get(each["name"])) for each in ours])


def _row(ours: dict[str, Any], peer: dict[str, Any] | None) -> list[str]:
    time = ours["us"]["median"]
    cells = [ours["name"], str(ours["launches"]), f"{time:.0f}", f"{ours['us_without_replay']['median']:.0f}"]
    if peer is None:
        return [*cells, NOTHING, NOTHING]
    return [*cells, f"{peer['us']['median']:.0f}", f"{peer['us']['median'] / time:.2f}"]
