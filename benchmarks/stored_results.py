"""Finished results on disk: `parts/<name>.json` contains the numbers, `parts/<name>.npz` the arrays.

Each has a fingerprint of everything that determines its result. A file that is damaged or has another fingerprint
counts as missing, so that the quantizer is trained again.
"""

import hashlib
import io
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import quantizers
from benchmarks import machine
from benchmarks.data import Photographs
from benchmarks.files import write_bytes, write_json
from benchmarks.training import Recipe
from benchmarks.variants import file_name

FOLDER = "parts"  # inside the folder of a run; the name on disk predates this module's name

# The benchmark's files whose source determines a result. Reports and plots do not.
DECIDING = (
    "aids",
    "autoencoder",
    "codes",
    "cost",
    "crops",
    "data",
    "evaluation",
    "models/convolutions",
    "training",
    "utilization",
    "variants",
)


@dataclass(frozen=True)
class StoredResult:
    """The result of one quantizer.

    numbers          "quantizer", "codebook_size", "codebooks", "train_seconds", "date", and the fields of
                     Evaluation and Cost
    counts           int64 [codebooks · K]: how often each code occurred on held-out images
    train_mse        float32 [steps], on the [0, 1] scale
    train_codes_used int64 [steps]: codes used in a sliding window of steps
    views            uint8 [V, S, S, 3]: reconstructions of the held-out views
    """

    numbers: dict[str, Any]
    counts: np.ndarray
    train_mse: np.ndarray
    train_codes_used: np.ndarray
    views: np.ndarray

    @property
    def name(self) -> str:
        return str(self.numbers["quantizer"])

    @property
    def code_count(self) -> int:
        """The number of codes in all codebooks."""
        return int(self.numbers["codebook_size"]) * int(self.numbers["codebooks"])

    @property
    def has_codes(self) -> bool:
        return bool(self.numbers["codebook_size"])


def fingerprint(name: str, recipe: Recipe, photographs: Photographs, source: str | None = None) -> str:
    """Return a digest of quantizer, recipe, data, machine, versions and source text.

    `source` is a digest of the source text, needed if more than the benchmark's own files determines the result.
    """
    decides = {
        "quantizer": name,
        "recipe": asdict(recipe),
        "data": photographs.describe(),
        "machine": machine.machine(torch.device(recipe.device)),
        "versions": machine.versions(),
        "source": source_digest() if source is None else source,
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def source_digest(deciding: Iterable[Path] | None = None) -> str:
    """Return a digest of the library's code and of the files `deciding`, by default the benchmark's own.

    The version alone is not enough: it stays the same during work on a quantizer.
    """
    package, here = Path(quantizers.__file__).parent, Path(__file__).parent
    if deciding is None:
        deciding = [here / f"{module}.py" for module in DECIDING]
    # The folder kernels is a symbolic link, which rglob does not follow.
    library = {path for folder in (package, package / "kernels") for path in folder.rglob("*.py")}
    digest = hashlib.sha256()
    for path in [*sorted(library), *deciding]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def save(folder: Path, key: str, result: StoredResult) -> None:
    """Write the arrays, then the JSON with their digest. The JSON is what makes a result complete."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: getattr(result, name) for name in _ARRAYS})
    arrays = buffer.getvalue()
    write_bytes(folder / f"{file_name(result.name)}.npz", arrays)
    digest = hashlib.sha256(arrays).hexdigest()
    write_json(
        folder / f"{file_name(result.name)}.json",
        {"fingerprint": key, "arrays_sha256": digest, "numbers": result.numbers},
    )


def load(folder: Path, name: str, key: str) -> StoredResult | None:
    """Return the stored result; None if there is none with this fingerprint or it is damaged."""
    try:
        stored = json.loads((folder / f"{file_name(name)}.json").read_bytes())
        arrays = (folder / f"{file_name(name)}.npz").read_bytes()
        whole = stored["arrays_sha256"] == hashlib.sha256(arrays).hexdigest()
        if stored["fingerprint"] != key or not whole:
            return None
        with np.load(io.BytesIO(arrays)) as read:
            return StoredResult(stored["numbers"], **{array: read[array] for array in _ARRAYS})
    except (OSError, ValueError, KeyError, TypeError):  # missing, truncated, or not written by save()
        return None


_ARRAYS = ("counts", "train_mse", "train_codes_used", "views")
