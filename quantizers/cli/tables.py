"""Indices in files: written block by block, and read the same way."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from quantizers.cli.exits import InputError
from quantizers.cli.files import written_whole
from quantizers.core.base import Quantizer
from quantizers.vectors.files import NpyWriter

FORMATS = (".npy", ".parquet", ".qbs")
MOST_ELEMENTS = 2**34
"""The largest bitstream that is read: its indices and the flags of vectors without a code."""

Names = Sequence[str] | Sequence[int] | None


class IndexWriter(Protocol):
    """Takes indices block by block."""

    def write(self, indices: Tensor) -> None:
        """Append indices [n] or [n, levels]; −1 for a vector without a code."""


def check_format(path: Path) -> str:
    """The suffix of a file of indices. Raises: InputError for an unknown one."""
    if path.suffix not in FORMATS:
        raise InputError(f"--out: {path.name} ends in {path.suffix!r}, expected one of {', '.join(FORMATS)}")
    return path.suffix


def smallest_type(largest: int) -> np.dtype[Any]:
    """The smallest signed integer type that holds indices from −1 to `largest`."""
    return np.dtype(next(kind for kind in (np.int16, np.int32, np.int64) if largest <= np.iinfo(kind).max))


def columns_of(quantizer: Quantizer) -> int | None:
    """The columns of a quantizer's indices; None where a vector has one index and no axis for it."""
    return quantizer.num_codebooks if quantizer.composed else None


@contextmanager
def npy_writer(path: Path, columns: int | None, largest: int) -> Iterator[IndexWriter]:
    """Write integers [count, columns], or [count] if `columns` is None; the file appears if the block succeeds.

    Args: largest: the largest index, which decides the type.
    """
    dtype = smallest_type(largest)
    with NpyWriter(path, dtype, columns) as file:
        yield _NpyBlocks(file, dtype)


class _NpyBlocks:
    def __init__(self, file: NpyWriter, dtype: np.dtype[Any]) -> None:
        self.file, self.dtype = file, dtype

    def write(self, indices: Tensor) -> None:
        self.file.append(indices.cpu().numpy().astype(self.dtype))


@contextmanager
def parquet_writer(path: Path, columns: int | None, names: Names = None) -> Iterator[IndexWriter]:
    """Write the columns item, level_1, level_2, ...; the file appears if the block succeeds.

    Args: names: of the items; by default their numbers.

    Raises: ImportError without pyarrow.
    """
    arrow, parquet = _pyarrow()
    kind = arrow.string() if names and isinstance(names[0], str) else arrow.int64()
    levels = [arrow.field(f"level_{level + 1}", arrow.int64()) for level in range(columns or 1)]
    schema = arrow.schema([arrow.field("item", kind), *levels])
    with written_whole(path) as temporary, parquet.ParquetWriter(temporary, schema) as file:
        yield _ParquetBlocks(file, schema, names)


class _ParquetBlocks:
    def __init__(self, file: Any, schema: Any, names: Names) -> None:
        self.file, self.schema, self.names, self.start = file, schema, names, 0

    def write(self, indices: Tensor) -> None:
        stop = self.start + len(indices)
        items = range(self.start, stop) if self.names is None else self.names[self.start : stop]
        levels = indices.reshape(len(indices), len(self.schema) - 1).cpu().numpy()
        arrow, _ = _pyarrow()
        columns = [list(items), *levels.T]
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

    def write(self, indices: Tensor) -> None:
        self.held.append(indices.cpu().numpy().astype(self.dtype))


def read_blocks(path: Path, levels: int, rows: int) -> Iterator[Tensor]:
    """Indices in blocks [rows, columns], the last one shorter.

    Args: path: a file that `open_writer` wrote. levels: how many columns are expected. rows: of a block.

    Raises: InputError for a file that does not contain such indices.
    """
    readers = {".npy": _npy_blocks, ".parquet": _parquet_blocks, ".qbs": _stream_blocks}
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    if path.suffix not in readers:
        raise InputError(f"{path.name} ends in {path.suffix!r}, expected one of {', '.join(FORMATS)}")
    for block in readers[path.suffix](path, rows):
        block = block[:, None] if block.ndim == 1 else block
        if block.ndim != 2 or block.shape[1] != levels:
            found = "×".join(map(str, block.shape[1:])) or "1"
            raise InputError(f"{path} has {found} columns of indices; the quantizer has {levels} codebooks")
        yield block


def _npy_blocks(path: Path, rows: int) -> Iterator[Tensor]:
    try:
        indices = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise InputError(f"{path} is not a complete .npy file of numbers: {error}") from error
    if indices.dtype.kind not in "iu" or indices.ndim not in (1, 2):
        raise InputError(f"{path} has {indices.dtype} of shape {indices.shape}, expected indices [count, levels]")
    for start in range(0, len(indices), rows):
        yield torch.from_numpy(indices[start : start + rows].astype(np.int64))


def _parquet_blocks(path: Path, rows: int) -> Iterator[Tensor]:
    _, parquet = _pyarrow()
    file = parquet.ParquetFile(path)
    columns = [name for name in file.schema_arrow.names if name.startswith("level_")]
    if not columns:
        raise InputError(
            f"{path} has the columns {', '.join(file.schema_arrow.names)}, expected level_1, level_2, ..."
        )
    for batch in file.iter_batches(rows, columns=columns):
        yield torch.from_numpy(np.stack([column.to_numpy(zero_copy_only=False) for column in batch.columns], -1))


def _stream_blocks(path: Path, rows: int) -> Iterator[Tensor]:
    from quantizers.bitstream import decompress

    yield from decompress(path.read_bytes(), max_elements=MOST_ELEMENTS).split(rows)


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError("Parquet files need pyarrow: pip install 'quantizers-torch[parquet]'") from error
    return pyarrow, parquet
