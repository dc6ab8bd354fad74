"""Finished measurements on disk, so that an interrupted run continues where it ended."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import machine
from benchmarks.files import write_json
from benchmarks.stored_results import source_digest

Rows = list[dict[str, Any]]
# Modules whose source determines the numbers.
DECIDING = (
    "search/cached_attention",
    "search/caching",
    "search/coders",
    "search/data",
    "search/identifiers",
    "search/items",
    "search/measures",
    "search/neighbours",
    "search/of_faiss",
    "search/ours",
    "search/qinco",
    "models/attention",
    "models/transformer",
    "offline/features",
    "offline/patches",
    "offline/text",
)


class Parts:
    """A folder with one JSON file for each measurement.

    A file counts only while machine, versions, the library's source and that of the measurement stay the same.

    fresh: measure everything again, and replace the files.
    """

    def __init__(self, folder: Path, *, fresh: bool = False) -> None:
        benchmarks = Path(__file__).parent.parent
        self.folder = folder
        self.fresh = fresh
        self.circumstances = {
            "machine": machine.machine(torch.device("cpu")),
            "versions": machine.versions(),
            "source": source_digest([benchmarks / f"{name}.py" for name in DECIDING]),
        }

    def get(self, key: dict[str, Any], measure: Callable[[], Rows]) -> Rows:
        """Return the stored rows of a measurement, or measure and store them.

        Args: key: everything that determines the measurement beside the circumstances; JSON values.
        """
        text = json.dumps({**self.circumstances, **key}, sort_keys=True)
        path = self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"
        stored = None if self.fresh else _read(path)
        if stored is None:
            stored = measure()
            write_json(path, {"key": key, "rows": stored})
        return stored


def _read(path: Path) -> Rows | None:
    """Return the rows; None if the file is missing or damaged."""
    try:
        rows: Rows = json.loads(path.read_bytes())["rows"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return rows
