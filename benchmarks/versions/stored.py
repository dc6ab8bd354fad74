"""Results of earlier runs, in the JSON of the report, as far as they still hold."""

import hashlib
import json
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT
from benchmarks.versions.parts import PARTS, Part

KINDS = (".py", ".cpp", ".h")


def load(path: Path) -> dict[str, dict[str, Any]]:
    """Return the sets of an earlier report by name, each with the parts whose results still hold.

    These ran to their end, on the sources that there are now. Nothing if there is no report, or if it is damaged.
    """
    now = {part.name: sources(part) for part in PARTS}
    try:
        sets = json.loads(path.read_text())["sets"]
        return {each["name"]: {**each, "parts": parts} for each in sets if (parts := _current(each["parts"], now))}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _current(parts: list[dict[str, Any]], now: dict[str, str]) -> list[dict[str, Any]]:
    return [part for part in parts if not part["error"] and part["sources"] == now.get(part["part"])]


def sources(part: Part) -> str:
    """Return a digest of the library, of a part's tests, and of what chooses them.

    Unlike the commit, it stays when something else changes, such as a page of the documentation.
    """
    tests = [ROOT / "tests" / path for path in part.paths]
    deciding = [
        ROOT / "pyproject.toml",
        ROOT / "benchmarks" / "versions" / "parts.py",
        *(ROOT / "tests").glob("*.py"),
    ]
    folders = [ROOT / "quantizers", ROOT / "kernels", *tests]
    found = {path for folder in folders for path in (folder.rglob("*") if folder.is_dir() else [folder])}
    digest = hashlib.sha256()
    for path in sorted({path for path in found if path.suffix in KINDS} | set(deciding)):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
