"""The guide to codebooks fitted offline shows what was measured."""

import json
from pathlib import Path

from benchmarks.offline.page import summary

ROOT = Path(__file__).parents[2]


def test_the_guide_shows_what_is_committed() -> None:
    record = json.loads((ROOT / "benchmarks" / "results" / "offline-cpu" / "offline.json").read_text())
    assert summary(record) in (ROOT / "docs" / "fitting-codebooks.md").read_text()
