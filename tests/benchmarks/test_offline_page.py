"""The guide to codebooks fitted offline shows what was measured."""

import json
from pathlib import Path

from benchmarks.offline.page import summary

ROOT = Path(__file__).parents[2]


def test_the_guide_shows_what_is_committed() -> None:
    record = json.loads((ROOT / "benchmarks" / "results" / "offline-cpu" / "offline.json").read_text())
    assert summary(record) in (ROOT / "docs" / "fitting-codebooks.md").read_text()


def test_the_tables_of_codes_are_those_of_the_report() -> None:
    measured = (ROOT / "benchmarks" / "results" / "search-cpu" / "search.md").read_text().splitlines()
    page = (ROOT / "docs" / "fitting-codebooks.md").read_text().splitlines()
    rows = [line for line in page if line.startswith("|") and (", ours" in line or ", faiss |" in line)]
    assert len(rows) == 44
    assert set(rows) <= set(measured)
