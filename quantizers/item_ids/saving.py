"""Semantic IDs in a folder.

The folder contains the quantizer as `quantizers.save` writes it, `ids.npy` with the IDs, int64 [N, levels],
`items.json` with the items, in the same order, and `semantic_ids.json` with the policy, counts, the skipped items,
and a checksum of each file that has to belong to the same table. Files that exist are replaced as a whole. If
`save` is interrupted between two files, `load` finds by the checksums that they do not belong together.
"""

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from quantizers.core.base import Quantizer
from quantizers.item_ids.items import Item
from quantizers.serialization.saving import WEIGHTS, check_folder, import_safetensors
from quantizers.serialization.saving import load as load_quantizer
from quantizers.serialization.saving import save as save_quantizer

CODES = "ids.npy"
ITEMS = "items.json"
DESCRIPTION = "semantic_ids.json"
FORMAT = 1
PIECE = 2**20  # bytes that a checksum reads at once


class Stored(NamedTuple):
    """A table without its quantizer."""

    codes: Tensor
    items: list[Item]
    skipped: list[Item]
    collisions: str
    collided: int


def write(quantizer: Quantizer, table: Stored, path: str | os.PathLike[str]) -> None:
    """Save a table and its quantizer to a folder, which is created if it does not exist.

    Raises: ImportError without safetensors; FileExistsError where `path` is a file, or a folder in which one of
        these files belongs to something else; and the errors of `quantizers.save`.
    """
    import_safetensors()
    folder = Path(path)
    _check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as unfinished:
        _write_new(folder / CODES, lambda file: np.save(file, table.codes.cpu().numpy()), unfinished)
        _write_new(folder / ITEMS, lambda file: file.write(_json(table.items)), unfinished)
        save_quantizer(quantizer, folder)
        description = {
            "format": FORMAT,
            "count": len(table.items),
            "levels": table.codes.shape[1],
            "collisions": table.collisions,
            "collided": table.collided,
            "skipped": table.skipped,
            "sha256": {
                CODES: _checksum(_new(folder / CODES)),
                ITEMS: _checksum(_new(folder / ITEMS)),
                WEIGHTS: _checksum(folder / WEIGHTS),
            },
        }
        _write_new(folder / DESCRIPTION, lambda file: file.write(_json(description, indent=2)), unfinished)
        for name in (CODES, ITEMS, DESCRIPTION):
            _new(folder / name).replace(folder / name)


def read(path: str | os.PathLike[str]) -> tuple[Quantizer, Stored]:
    """Load what `write` saved.

    Raises: ImportError without safetensors; FileNotFoundError for a folder or file that does not exist; ValueError
        for a damaged file, and for files that do not belong together.
    """
    folder = Path(path)
    for name in (DESCRIPTION, CODES, ITEMS):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"there is no {name} in {folder}, expected a folder that SemanticIDs.save wrote"
            )
    description = _description(folder / DESCRIPTION)
    quantizer = load_quantizer(folder)
    for name, checksum in description["sha256"].items():
        if _checksum(folder / name) != checksum:
            raise ValueError(
                f"{folder / name} does not belong to {folder / DESCRIPTION}: it has changed since, or saving was "
                "interrupted; expected the files of one SemanticIDs.save"
            )
    codes = torch.from_numpy(np.load(folder / CODES, allow_pickle=False))
    items = json.loads((folder / ITEMS).read_text(encoding="utf-8"))
    return quantizer, Stored(
        codes, items, description["skipped"], description["collisions"], description["collided"]
    )


def _check_folder(folder: Path) -> None:
    check_folder(folder)
    if (folder / DESCRIPTION).exists():
        _description(folder / DESCRIPTION, FileExistsError)
        return
    for name in (CODES, ITEMS):
        if (folder / name).exists():
            raise FileExistsError(
                f"{folder / name} exists without {DESCRIPTION}, so it is something else, and is not overwritten; "
                "expected another folder"
            )


def _description(file: Path, error: type[Exception] = ValueError) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        content = None
    expected = {"format", "collisions", "collided", "skipped", "sha256"}
    if not isinstance(content, dict) or not expected <= content.keys() or not isinstance(content["sha256"], dict):
        raise error(f"{file} is not a description of semantic IDs; expected one that SemanticIDs.save wrote")
    if content["format"] != FORMAT:
        raise error(f"{file} has format {content['format']!r}, expected {FORMAT}: a later version wrote it")
    return content


def _write_new(file: Path, write: Callable[[Any], object], unfinished: ExitStack) -> None:
    """Write beside the old file; unless it is renamed, it is removed at the end."""
    new = _new(file)
    unfinished.callback(new.unlink, missing_ok=True)
    with new.open("wb") as stream:
        write(stream)


def _new(file: Path) -> Path:
    return file.with_name(f".{file.name}.new")


def _json(content: Any, indent: int | None = None) -> bytes:
    return (
        json.dumps(content, indent=indent) + "\n"
    ).encode()  # ASCII: any string comes back, also half a character


def _checksum(file: Path) -> str:
    with file.open("rb") as stream:
        digest = hashlib.sha256()
        while piece := stream.read(PIECE):
            digest.update(piece)
        return digest.hexdigest()
