"""Files that appear whole or not at all."""

import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from quantizers.cli.exits import InputError
from quantizers.serialization.saving import CONFIGURATION, check_folder

NAMES = (
    "config.json", "model.safetensors", "ids.npy", "ids.parquet", "items.json", "semantic_ids.json", "report.json",
    "report.png",
)  # fmt: skip
"""Of all files that `fit` may write."""
OURS = "report.json"  # without which the others belong to somebody else


def make_writable(folder: Path) -> None:
    """Create a folder for results, and try to write there before the work begins.

    Raises: InputError for a place that cannot be written, and for files that would be replaced and are not ours.
    """
    taken = [name for name in ("ids.npy", "ids.parquet", "report.png") if (folder / name).exists()]
    if taken and not (folder / OURS).exists():
        raise InputError(
            f"--out: {folder / taken[0]} exists and is not of an earlier fit, expected another folder"
        )
    try:
        check_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"--out: cannot write in {folder}: {(error.strerror or str(error)).lower()}") from error


def check_target(path: Path) -> None:
    """Raises: InputError where a file cannot be written at `path`."""
    if path.is_dir():
        raise InputError(f"--out: {path} is a folder, expected the name of a file")
    if not path.parent.is_dir():
        raise InputError(f"--out: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"--out: cannot write in {path.parent}: permission denied")


def check_suffix(path: Path, suffixes: Sequence[str]) -> None:
    """Raises: InputError where the name of a file ends in none of these suffixes."""
    if path.suffix not in suffixes:
        raise InputError(f"--out: {path.name} ends in {path.suffix!r}, expected one of {', '.join(suffixes)}")


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A new folder inside `folder`. What the block writes into it moves to `folder` if the block succeeds.

    Until then, and after an error, `folder` contains what it contained before. The configuration of a quantizer
    moves last, and an old one is removed first, so that no moment pairs it with other weights.
    """
    staging = Path(tempfile.mkdtemp(prefix=".new-", dir=folder))
    try:
        yield staging
        written = sorted(staging.iterdir(), key=lambda path: path.name == CONFIGURATION)
        if (staging / CONFIGURATION).exists():
            (folder / CONFIGURATION).unlink(missing_ok=True)
        for path in written:
            os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """The name of a temporary file beside `path`, which replaces it if the block succeeds."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON. Numbers that are not finite become null, since JSON has neither NaN nor infinity."""
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(_finite(value), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
