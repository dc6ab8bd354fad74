"""Indices into files, block by block."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from quantizers.cli.files import check_suffix, written_whole
from quantizers.core.base import Quantizer
from quantizers.vectors.files import NpyWriter

FORMATS = (".npy", ".parquet", ".qbs")
Names = Sequence[str | int] | None


class IndexWriter(Protocol):
    """Takes indices block by block."""

    def append(self, block: Tensor, /) -> None:
        """Add indices [n] or [n, levels]; −1 for a vector without a code."""


def check_format(path: Path) -> str:
    """The suffix of a file of indices. Raises: InputError for an unknown one."""
    check_suffix(path, FORMATS)
    return path.suffix


def smallest_type(largest: int) -> np.dtype[Any]:
    """The smallest signed integer type that holds indices from −1 to `largest`."""
    return np.dtype(next(kind for kind in (np.int16, np.int32, np.int64) if largest <= np.iinfo(kind).max))


def columns_of(quantizer: Quantizer) -> int | None:
    """The columns of a quantizer's indices; None where a vector has one index and no axis for it."""
    return quantizer.num_codebooks if quantizer.composed else None


def npy_writer(path: Path, columns: int | None, largest: int) -> NpyWriter:
    """Write integers [count, columns], or [count] if `columns` is None; the file appears if the block succeeds.

    Args: largest: the largest index, which decides the type.
    """
    return NpyWriter(path, smallest_type(largest), columns)


@contextmanager
def parquet_writer(path: Path, columns: int | None, names: Names = None) -> Iterator[IndexWriter]:
    """Write the columns item, level_1, level_2, ...; the file appears if the block succeeds.

    Args: names: of the items; by default their numbers.

    Raises: ImportError without pyarrow.
    """
    arrow, parquet = import_pyarrow()
    kind = arrow.string() if any(isinstance(name, str) for name in names or ()) else arrow.int64()
    levels = [arrow.field(f"level_{level + 1}", arrow.int64()) for level in range(columns or 1)]
    schema = arrow.schema([arrow.field("item", kind), *levels])
    with written_whole(path) as temporary, parquet.ParquetWriter(temporary, schema) as file:
        yield _ParquetBlocks(file, schema, names)


class _ParquetBlocks:
    def __init__(self, file: Any, schema: Any, names: Names) -> None:
        self.file, self.schema, self.names, self.start = file, schema, names, 0

    def append(self, indices: Tensor) -> None:
        stop = self.start + len(indices)
        items = range(self.start, stop) if self.names is None else self.names[self.start : stop]
        levels = indices.reshape(len(indices), len(self.schema) - 1).cpu().numpy()
        arrow, _ = import_pyarrow()
        texts = map(str, items) if self.schema[0].type == arrow.string() else items
        columns = [list(texts), *levels.T]
        arrays = [arrow.array(column, field.type) for column, field in zip(columns, self.schema, strict=True)]
        self.file.write_table(arrow.Table.from_arrays(arrays, schema=self.schema))
        self.start = stop


@contextmanager
def stream_writer(path: Path, quantizer: Quantizer) -> Iterator[IndexWriter]:
    """Write a stream of `quantizers.bitstream`.

    All indices are in memory until the end, because their counts come before them in the stream.
    """
    from quantizers.bitstream import compress

    blocks = _Blocks(smallest_type(max(quantizer.codebook_sizes) - 1))
    yield blocks
    stream = compress(torch.from_numpy(np.concatenate(blocks.held)), quantizer)
    with written_whole(path) as temporary:
        temporary.write_bytes(stream)


class _Blocks:
    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self.held: list[Any] = []

    def append(self, indices: Tensor) -> None:
        self.held.append(indices.cpu().numpy().astype(self.dtype))


def import_pyarrow() -> tuple[Any, Any]:
    """The package pyarrow, and its module parquet. Raises: ImportError, with the command that installs it."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError("Parquet files need pyarrow: pip install 'quantizers-torch[parquet]'") from error
    return pyarrow, parquet
