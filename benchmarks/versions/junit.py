"""What pytest's results in a JUnit file say."""

import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from benchmarks.machine import ROOT

LONGEST_MESSAGE = 200  # characters
MOST_FAILURES = 40  # that are named
PLACES = re.compile(rf"{re.escape(str(ROOT))}/|\S*/site-packages/|{re.escape(tempfile.gettempdir())}/")


def read(path: Path) -> dict[str, Any]:
    """Return the numbers of tests that "passed", "failed" and were "skipped", and their "seconds".

    "failures" are the first tests that failed, each with the first line of its message, and "skips" counts the
    reasons of what was skipped. A test without a name was interrupted, and is left out.

    Raises: OSError, ElementTree.ParseError.
    """
    cases = [case for case in ElementTree.parse(path).getroot().iter("testcase") if case.get("name")]
    failures, skips, passed = [], Counter[str](), 0
    for case in cases:
        outcomes = {outcome.tag: outcome for outcome in case}
        wrong = next((outcomes[tag] for tag in ("failure", "error") if tag in outcomes), None)
        if wrong is not None:
            name = f"{case.get('classname', '')}::{case.get('name', '')}".lstrip(":")
            failures.append({"test": name, "message": _first_line(wrong)})
        elif "skipped" in outcomes:
            skips[_first_line(outcomes["skipped"])] += 1
        else:
            passed += 1
    return {
        "passed": passed,
        "failed": len(failures),
        "skipped": skips.total(),
        "seconds": round(sum(float(case.get("time", 0)) for case in cases), 1),
        "failures": failures[:MOST_FAILURES],
        "skips": dict(skips.most_common()),
    }


def _first_line(outcome: ElementTree.Element) -> str:
    """Return the first line of a message, without the places of files on this machine."""
    lines = (outcome.get("message") or outcome.text or "").strip().splitlines() or [""]
    return PLACES.sub("", lines[0])[:LONGEST_MESSAGE]
