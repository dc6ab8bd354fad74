"""The README and the page on utilization show what `make bench` wrote."""

import json
import re

from tests.docs.packages import ROOT
from tests.docs.pages import table_rows

RESULTS = ROOT / "benchmarks" / "results" / "utilization-cpu"
TABLE = re.compile(r"(?:^\|.*\n)+", re.M)


def test_the_page_on_utilization_shows_the_committed_table() -> None:
    page = (ROOT / "docs" / "results" / "utilization.md").read_text()
    assert TABLE.findall((RESULTS / "utilization.md").read_text())[0] in page


def test_the_readme_shows_columns_of_the_committed_table() -> None:
    section = (ROOT / "README.md").read_text().partition("## What they do in the same autoencoder")[2]
    shown = table_rows(TABLE.findall(section)[0])
    committed = table_rows(TABLE.findall((RESULTS / "utilization.md").read_text())[0])
    for ours, theirs in zip(shown, committed, strict=True):
        method = re.match(r"`?(\w+)", ours[0])
        assert method
        assert method[1] in (theirs[0].partition(":")[0], "no")
        assert ours[1:] == [theirs[column].replace("-", "–") for column in (1, 3, 5, 7)]


def test_the_committed_run_is_of_one_clean_revision() -> None:
    record = json.loads((RESULTS / "utilization.json").read_text())
    assert not record["revision"]["dirty"]
    assert not record["missing"]
    assert not record["interrupted"]
