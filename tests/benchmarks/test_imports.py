"""`python -m benchmarks imports`: counts and seconds of imports, and what the documentation says about them."""

import json
from pathlib import Path

import pytest

from benchmarks.imports import PROGRAMS, run, sheet

COMMITTED = Path(__file__).parents[2] / "benchmarks" / "results" / "imports-cpu" / "imports.json"


@pytest.mark.long("an end-to-end run")
def test_each_program_is_imported_beside_torch() -> None:
    started: list[str] = []
    result = run(1, started.append)
    assert tuple(started) == PROGRAMS
    rows = result["programs"]
    assert rows["torch"]["modules_beside_torch"] == 0 < rows["quantizers"]["modules_beside_torch"]
    assert all(row["cpu_seconds"] > 0 for row in rows.values())
    assert [row[0] for row in sheet(result).rows] == [
        "import torch", "import torch, quantizers", "import torch, vector_quantize_pytorch"
    ]  # fmt: skip


def test_the_committed_measurement_is_within_its_bound() -> None:
    result = json.loads(COMMITTED.read_text())
    assert not result["revision"]["dirty"]
    assert result["programs"]["quantizers"]["seconds_over_torch"] <= 1.2
