"""The page on installing shows what was run, and what the package declares."""

import json
import re

import pytest

from benchmarks.versions import page
from benchmarks.versions.sets import SETS
from tests.docs.packages import ROOT

PAGE = (ROOT / "docs" / "installing.md").read_text()
PROJECT = (ROOT / "pyproject.toml").read_text()
RECORD = json.loads((ROOT / "benchmarks" / "results" / "versions-cpu" / "versions.json").read_text())
FOR_DEVELOPERS = {"bench", "dev", "docs", "models", "peers", "test"}


def test_the_page_shows_the_tables_of_the_committed_run() -> None:
    shown = re.search(r"<!-- begin versions -->\n(.*?)\n<!-- end versions -->", PAGE, re.S)
    assert shown
    assert shown[1].strip() == page.tables(RECORD).strip()


def test_the_committed_run_is_of_listed_sets() -> None:
    listed = {each.name: each for each in SETS}
    assert RECORD["sets"]
    for entry in RECORD["sets"]:
        target = listed[entry["name"]]
        found = {name: entry["installed"][name].partition("+")[0] for name in ("torch", "numpy", "triton")}
        assert found == target.pins
        assert entry["installed"]["python"].startswith(f"{target.python}.")


def test_the_committed_run_names_no_place_of_its_machine() -> None:
    assert not re.search(r"(?<![\w.])/(?:home|root|tmp|usr|work|opt)/", json.dumps(RECORD))


@pytest.mark.parametrize(("name", "written"), [("torch", "torch"), ("numpy", "NumPy")])
def test_the_page_names_the_oldest_releases(name: str, written: str) -> None:
    floor = re.search(rf'^  "{name}>=([\d.]+)"', PROJECT, re.M)
    assert floor
    assert f"{written} {floor[1]} or newer" in PAGE


def test_the_page_names_the_oldest_python() -> None:
    floor = re.search(r'requires-python = ">=([\d.]+)"', PROJECT)
    assert floor
    assert f"Python {floor[1]} or newer" in PAGE


def test_the_page_lists_every_extra_for_users() -> None:
    extras = re.search(r"^\[project\.optional-dependencies\]\n(.*?)^\[", PROJECT, re.M | re.S)
    assert extras
    names = set(re.findall(r"^(\w+) = \[", extras[1], re.M))
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE.partition("## Versions")[0], re.M)) == names - FOR_DEVELOPERS
