"""Vectors in .parquet, .arrow and .feather files, read batch by batch with pyarrow (the extra `parquet`)."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from quantizers.vectors.base import Vectors, piece_rows
from quantizers.vectors.columns import (
    RecordBatch,
    choose_columns,
    item_dtype,
    list_lengths,
    values_of,
    width,
)
from quantizers.vectors.regions import opened
from quantizers.vectors.values import check_shape, check_some, from_numpy

FIRST = 1024  # rows that are read to find the number of channels
BUFFER = 2**22  # bytes that are read ahead, of all columns together
ARROW_FILE, OLD_FEATHER = b"ARROW1", b"FEA1"
END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"


@dataclass(frozen=True)
class Table:
    """A file with columns: its schema, its rows if they are known, and its record batches."""

    schema: Any
    count: int | None
    batches: Callable[[list[str], int], Iterator[RecordBatch]]
    """Takes the names of columns and about how many rows to read at a time."""


class TableVectors(Vectors):
    """The vectors of one column of lists, or of columns that are channels.

    Raises: as `choose_columns`; ValueError for no rows, no channels, or lists of different lengths.
    """

    def __init__(self, path: str, table: Table, column: str | None) -> None:
        self._table = table
        self._columns = choose_columns(path, table.schema, column)
        self.name = f"column {self._columns[0]!r} of {path}" if len(self._columns) == 1 else path
        self.count = table.count
        if self.count is not None:
            check_some(self.name, self.count)
        self._dtype = item_dtype(table.schema, self._columns)
        self.dim = width(table.schema, self._columns) or self._first_length()
        check_shape(self.name, (1, self.dim))

    def _first_length(self) -> int:
        rows = 0
        for batch in self._table.batches(self._columns, FIRST):
            column = batch.column(batch.schema.get_field_index(self._columns[0]))
            lengths = list_lengths(getattr(column, "storage", column))
            if (lengths >= 0).any():
                return int(lengths[lengths >= 0][0])
            rows += len(batch)
        check_some(self.name, rows)
        raise ValueError(f"{self.name} has only nulls, expected lists of floats")

    def _pieces(self, rows: int) -> Iterator[Tensor]:
        first = 0
        for batch in self._table.batches(self._columns, piece_rows(self.dim)):
            yield from_numpy(values_of(batch, self._columns, self.dim, self._dtype, self.name, first))
            first += len(batch)


def open_parquet(path: str, column: str | None = None) -> Vectors:
    """The vectors of a .parquet file. Raises: as `TableVectors`, and as `open_arrow`."""
    import_pyarrow(path)
    import pyarrow.parquet

    def batches(columns: list[str], rows: int) -> Iterator[RecordBatch]:
        # Without a buffer, pyarrow reads whole row groups, which may be the whole file.
        buffer = max(2**14, BUFFER // len(columns))
        with _reading(path), pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=buffer) as file:
            yield from file.iter_batches(rows, columns=columns)

    with _opening(path, "a Parquet file"), pyarrow.parquet.ParquetFile(path) as file:
        table = Table(file.schema_arrow, file.metadata.num_rows, batches)
    return TableVectors(path, table, column)


def open_arrow(path: str, column: str | None = None) -> Vectors:
    """The vectors of an .arrow or .feather file in Arrow's file or stream format, with memory for a record batch.

    The number of rows is unknown before a pass.

    Raises: as `TableVectors`; ImportError without pyarrow; ValueError for a file that is cut off or of another
    format; OSError if it cannot be read.
    """
    pyarrow = import_pyarrow(path)
    is_file = _is_arrow_file(path)

    def batches(columns: list[str], rows: int) -> Iterator[RecordBatch]:
        options = pyarrow.ipc.IpcReadOptions(
            included_fields=[table.schema.get_field_index(each) for each in columns]
        )
        with _reading(path), pyarrow.OSFile(path) as source:
            if not is_file:
                yield from pyarrow.ipc.open_stream(source, options=options)
                return
            reader = pyarrow.ipc.open_file(source, options=options)
            for number in range(reader.num_record_batches):
                yield reader.get_batch(number)

    with _opening(path, "an Arrow file"), pyarrow.OSFile(path) as source:
        reader = pyarrow.ipc.open_file(source) if is_file else pyarrow.ipc.open_stream(source)
        table = Table(reader.schema, None, batches)
    if not is_file:
        _check_end(path)
    return TableVectors(path, table, column)


def _is_arrow_file(path: str) -> bool:
    """Whether a file has Arrow's file format; otherwise it may be a stream. Raises: ValueError for old Feather."""
    with opened(path) as file:
        magic = file.read(len(ARROW_FILE))
    if magic.startswith(OLD_FEATHER):
        raise ValueError(f"{path} has version 1 of Feather's format, expected version 2")
    return magic == ARROW_FILE


def _check_end(path: str) -> None:
    """A stream that is cut off between two batches would look like a shorter one. Raises: ValueError for that."""
    with opened(path) as file:
        file.seek(-len(END_OF_STREAM), os.SEEK_END)
        if file.read() != END_OF_STREAM:
            raise ValueError(f"{path} is cut off: it does not end with the marker of a complete Arrow stream")


def import_pyarrow(path: str) -> Any:
    """The package pyarrow. Raises: ImportError, with the command that installs it."""
    try:
        import pyarrow.ipc
    except ImportError as error:
        raise ImportError(f"reading {path} needs pyarrow: pip install 'quantizers-torch[parquet]'") from error
    return pyarrow


@contextmanager
def _opening(path: str, format: str) -> Iterator[None]:
    with opened(path):  # whose errors are sentences
        pass
    try:
        yield
    except (import_pyarrow(path).ArrowException, OSError, EOFError) as error:
        raise ValueError(f"{path} is not {format}, or is cut off or damaged: {_sentence(error)}") from error


@contextmanager
def _reading(path: str) -> Iterator[None]:
    try:
        yield
    except (import_pyarrow(path).ArrowException, OSError, EOFError) as error:
        raise OSError(f"{path} cannot be read, it may be cut off or damaged: {_sentence(error)}") from error


def _sentence(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
