"""Results of earlier runs, in the JSON of the report, as far as they still hold."""

import hashlib
import json
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT
from benchmarks.versions.parts import PARTS

KINDS = (".py", ".cpp", ".h")


def load(path: Path, sources: str) -> dict[str, dict[str, Any]]:
    """Return the sets of an earlier report by name, each with those parts that ran to their end on these sources.

    Nothing if there is no report, or if it is damaged.
    """
    try:
        record = json.loads(path.read_text())
        sets = [each for each in record["sets"] if each["sources"] == sources]
        return {
            each["name"]: {**each, "parts": [part for part in each["parts"] if not part["error"]]} for each in sets
        }
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def sources() -> str:
    """Return a digest of the library, of the tests of all parts, and of what chooses them.

    Unlike the commit, it stays when something else changes, such as a page of the documentation.
    """
    parts = [ROOT / "tests" / path for part in PARTS for path in part.paths]
    deciding = [
        ROOT / "pyproject.toml",
        ROOT / "benchmarks" / "versions" / "parts.py",
        *(ROOT / "tests").glob("*.py"),
    ]
    folders = [ROOT / "quantizers", ROOT / "kernels", *parts]
    found = {path for folder in folders for path in (folder.rglob("*") if folder.is_dir() else [folder])}
    digest = hashlib.sha256()
    for path in sorted({path for path in found if path.suffix in KINDS} | set(deciding)):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
