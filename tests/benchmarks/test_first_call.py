"""`python -m benchmarks first-call`: what the committed measurement says about wheels with compiled kernels."""

import json
from pathlib import Path

from benchmarks.first_call import STATES, sheet

COMMITTED = Path(__file__).parents[2] / "benchmarks" / "results" / "first-call-cpu" / "first_call.json"


def test_a_wheels_kernels_make_the_first_search_as_fast_as_cached_ones() -> None:
    """The seconds of one CPU; those of a wall clock are the machine's load."""
    result = json.loads(COMMITTED.read_text())
    seconds = {state: row["cpu_seconds"] for state, row in result["states"].items()}
    assert seconds["prebuilt"] <= 1.2 * seconds["cached"]
    assert seconds["compiling"] > 10 * seconds["prebuilt"]
    assert result["wheel_bytes"] < 2 * 10**6
    assert [row[0] for row in sheet(result).rows] == list(STATES)
