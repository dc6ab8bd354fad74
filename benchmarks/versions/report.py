"""The JSON of a run, and its tables."""

import platform
from collections.abc import Iterator
from typing import Any

from benchmarks import machine
from benchmarks.sheets import NOTHING, Sheet
from benchmarks.versions.parts import PARTS, PROFILE
from benchmarks.versions.run import Matrix
from benchmarks.versions.sets import SETS

NOT_ALL = "*"  # marks a part that was stopped


def full_record(matrix: Matrix) -> dict[str, Any]:
    """Return the JSON: machine, revision, and for each set its releases and the numbers of each part."""
    order = {name: number for number, name in enumerate(each.name for each in SETS)}
    known = [entry for name, entry in matrix.results.items() if name in order]
    return {
        "benchmark": "versions",
        "settings": {"hypothesis_profile": PROFILE, "limit_s": matrix.settings.limit_s, "threads": 1},
        "machine": {
            "processor": machine.processor_name(),
            "cores": machine.usable_cores(),
            "platform": f"{platform.system()} {platform.machine()}",
        },
        "revision": machine.revision(),
        "date": machine.date(),
        "sets": sorted(known, key=lambda entry: order[entry["name"]]),
        "interrupted": matrix.interrupted,
    }


def has_failed(record: dict[str, Any]) -> bool:
    """Whether a test failed, or did not run to its end."""
    return any(
        entry["error"] or any(part["error"] or part["failed"] for part in entry["parts"])
        for entry in record["sets"]
    )


def sheets(record: dict[str, Any]) -> list[Sheet]:
    """Return the table of parts, and that of the tests that were skipped."""
    return [results(record), *([skipped(record)] if any(_skips(record)) else [])]


def results(record: dict[str, Any]) -> Sheet:
    """Return a table with a row for each part and a column for each set."""
    sets = record["sets"]
    rows = [[name, *(_cell(entry, name) for entry in sets)] for name in (part.name for part in PARTS)]
    rows.append(["minutes", *(_minutes(entry) for entry in sets)])
    return Sheet("Tests that passed", ["tests", *(heading(entry) for entry in sets)], rows)


def skipped(record: dict[str, Any]) -> Sheet:
    """Return a table with a row for each reason, and the number of tests that it skipped in each set."""
    sets = record["sets"]
    reasons = dict.fromkeys(reason for skips in _skips(record) for reason in skips)
    rows = [
        [reason, *(str(sum(part.get("skips", {}).get(reason, 0) for part in entry["parts"])) for entry in sets)]
        for reason in reasons
    ]
    return Sheet("Tests that were skipped", ["reason", *(f"torch {entry['torch']}" for entry in sets)], rows)


def heading(entry: dict[str, Any]) -> str:
    return f"torch {entry['torch']}, Python {entry['python']}, numpy {entry['numpy']}"


def last_line(entry: dict[str, Any]) -> str:
    """Return what was found last in a set: the numbers of its newest part, or why there is no environment."""
    if entry["error"]:
        return f"torch {entry['torch']}: no environment: {entry['error']}"
    part = entry["parts"][-1]
    ending = f": {part['error']}" if part["error"] else ""
    return f"torch {entry['torch']}: {part['part']}: {_cell(entry, part['part'])}{ending}"


def notes(record: dict[str, Any]) -> list[str]:
    """Return a sentence for each test that failed, and for each part or set that did not run to its end."""
    found = []
    for entry in record["sets"]:
        where = f"torch {entry['torch']}"
        if entry["error"]:
            found.append(last_line(entry))
        for part in entry["parts"]:
            if part["error"]:
                found.append(f"{where}: {part['part']}{NOT_ALL}: {part['error']}")
            found += [f"{where}: {each['test']}: {each['message']}" for each in part.get("failures", [])]
    return found


def _skips(record: dict[str, Any]) -> Iterator[dict[str, int]]:
    for entry in record["sets"]:
        for part in entry["parts"]:
            if part.get("skips"):
                yield part["skips"]


def _cell(entry: dict[str, Any], name: str) -> str:
    part = next((each for each in entry["parts"] if each["part"] == name), None)
    if part is None or "passed" not in part:
        return NOTHING
    words = [f"{part['passed']}{NOT_ALL if part['error'] else ''}"]
    words += [f"{part[outcome]} {outcome}" for outcome in ("failed", "skipped") if part[outcome]]
    return ", ".join(words)


def _minutes(entry: dict[str, Any]) -> str:
    return f"{sum(part.get('seconds', 0) for part in entry['parts']) / 60:.1f}"
