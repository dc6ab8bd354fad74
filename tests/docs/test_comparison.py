"""The comparison with other libraries claims nothing for this one that no test holds."""

import re

from tests.docs.features import FEATURES
from tests.docs.packages import ROOT
from tests.docs.pages import table_rows

PAGE = (ROOT / "docs" / "comparison.md").read_text()
LIBRARIES = 5


def problems(page: str, features: dict[str, list[str]]) -> list[str]:
    """What is wrong with the tables, a sentence each."""
    found = []
    for feature, *cells in table_rows(page):
        if len(cells) != LIBRARIES or not all(cells):
            found.append(f"{feature}: a library has no cell")
        elif cells[0] != "–" and not features.get(feature):
            found.append(f"{feature}: no test holds it")
    missing = features.keys() - {row[0] for row in table_rows(page)}
    found += [f"{feature}: the page has no such row" for feature in missing]
    for feature, tests in features.items():
        for file, _, name in (test.partition("::") for test in tests):
            path = ROOT / "tests" / file
            if not (path.is_file() and re.search(rf"^def {name}\(", path.read_text(), re.M)):
                found.append(f"{feature}: {file} has no test {name}")
    return found


def test_each_feature_is_held_by_a_test() -> None:
    assert len(table_rows(PAGE)) > 60
    assert problems(PAGE, FEATURES) == []


def test_what_is_wrong_is_seen() -> None:
    head = "| | here | a | b | c | d |\n|---|---|---|---|---|---|\n"
    row = "| masks | yes | – | – | – | – |\n"
    held = {"masks": ["docs/test_comparison.py::test_what_is_wrong_is_seen"]}
    assert problems(head + row, held) == []
    assert problems(head + row.replace("yes", "–"), {}) == []
    assert problems(head + row, {}) == ["masks: no test holds it"]
    assert problems(head + row.replace("– |\n", "|\n"), held) == ["masks: a library has no cell"]
    assert problems(head, held) == ["masks: the page has no such row"]
    assert problems(head + row, {"masks": ["docs/test_comparison.py::test_x"]}) == [
        "masks: docs/test_comparison.py has no test test_x"
    ]
