"""The codes of all vectors after a fit: a table of indices, or semantic IDs without collisions."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from quantizers.cli.settings import Prepared
from quantizers.cli.writing import IndexWriter, Names, columns_of, npy_writer, parquet_writer
from quantizers.fitting import encode_vectors
from quantizers.fitting.report import OnProgress
from quantizers.item_ids import SemanticIDs
from quantizers.item_ids.groups import collision_rate
from quantizers.serialization.saving import save

BLOCK = 2**16  # rows of a table that are written at once


@dataclass(frozen=True)
class Assigned:
    """What the codes of all vectors look like."""

    counts: Sequence[Tensor]
    """For each codebook [K], how many vectors have each code."""
    shares: Sequence[float] = ()
    """For each number of first codes, the share of the items that have them in common with another item."""
    before: float | None = None
    """The share of the items whose whole ID is that of another item, before the policy and after it."""
    after: float | None = None


def stream_codes(prepared: Prepared, folder: Path, path: Path, batch_size: int, progress: OnProgress) -> Assigned:
    """Write the quantizer, and the indices of all vectors block by block."""
    quantizer = prepared.quantizer
    counts = torch.zeros(quantizer.codebook_size, dtype=torch.int64)
    largest = quantizer.codebook_size - 1
    with _table_writer(path, columns_of(quantizer), largest, prepared.names) as writer:
        blocks = encode_vectors(quantizer, prepared.vectors, batch_size=batch_size, progress=progress)
        for _, indices in blocks:
            indices = indices.cpu()
            writer.append(indices)
            counts += indices[indices >= 0].bincount(minlength=len(counts))
    save(quantizer, folder)
    return Assigned([counts])


def assign_ids(prepared: Prepared, folder: Path, path: Path, batch_size: int, progress: OnProgress) -> Assigned:
    """Write the quantizer with a table of semantic IDs, and the IDs of all vectors."""
    ids = SemanticIDs.from_quantizer(
        prepared.quantizer,
        prepared.vectors,
        items=prepared.names,
        collisions=prepared.collisions,
        batch_size=batch_size,
        progress=progress,
    )
    ids.save(folder)  # with ids.npy
    if path.suffix == ".parquet":
        write_parquet(path, ids)
    counts = [
        column.bincount(minlength=size)
        for column, size in zip(ids.codes.unbind(-1), prepared.quantizer.codebook_sizes, strict=False)
    ]
    shares = [collision_rate(ids.codes[:, :length]) for length in range(1, len(counts))]
    return Assigned(counts, shares, ids.collision_rate_before, ids.collision_rate)


def write_parquet(path: Path, ids: SemanticIDs) -> None:
    """Write a table of semantic IDs with the columns item, level_1, level_2, ..."""
    with parquet_writer(path, ids.codes.shape[1], ids.items) as writer:
        for block in torch.split(ids.codes, BLOCK):
            writer.append(block)


def _table_writer(
    path: Path, columns: int | None, largest: int, names: Names
) -> AbstractContextManager[IndexWriter]:
    """A writer of .npy, or of .parquet with names."""
    if path.suffix == ".parquet":
        return parquet_writer(path, columns, names)
    return npy_writer(path, columns, largest)
