"""Indices from files, block by block."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from quantizers.cli.exits import InputError
from quantizers.cli.writing import FORMATS, import_pyarrow

MOST_ELEMENTS = 2**34
"""The largest bitstream that is read: its indices and the flags of vectors without a code."""


def read_blocks(path: Path, levels: int, rows: int) -> Iterator[Tensor]:
    """Indices in blocks [rows, columns], the last one shorter.

    Args: path: a file of indices, as `encode` writes it. levels: the expected number of columns. rows: of a block.

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
    _, parquet = import_pyarrow()
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

    yield from torch.split(decompress(path.read_bytes(), max_elements=MOST_ELEMENTS), rows)
