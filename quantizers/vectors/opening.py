"""Open anything that contains vectors."""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from quantizers.core.arguments.checks import check_at_least, shown
from quantizers.vectors.arrays import ArrayVectors, TensorVectors
from quantizers.vectors.base import Vectors
from quantizers.vectors.batches import BatchedVectors
from quantizers.vectors.joined import join
from quantizers.vectors.npy import open_mapped, open_npy
from quantizers.vectors.safetensors import open_safetensors
from quantizers.vectors.tables import open_arrow, open_parquet
from quantizers.vectors.values import check_dim

Data = Tensor | np.ndarray[Any, Any] | str | os.PathLike[str] | Iterable[Any] | Vectors

READERS: dict[str, Callable[..., Vectors]] = {
    ".npy": open_npy,
    ".safetensors": open_safetensors,
    ".parquet": open_parquet,
    ".arrow": open_arrow,
    ".feather": open_arrow,
}
"""By the suffix of a file; those in `WITH_COLUMNS` take the name of a column as well."""

WITH_COLUMNS = READERS.keys() - {".npy"}


def open_vectors(data: Data, *, column: str | None = None, dim: int | None = None) -> Vectors:
    """Open vectors without reading them all.

    The values are float16, bfloat16, float32 or float64. Vectors are [count, dim], with at least one row.

        open_vectors(torch.randn(1000, 64))
        open_vectors("items.npy")  # larger than memory
        open_vectors("items.parquet", column="embedding")
        open_vectors(DataLoader(data, batch_size=512))

    Args:
        data: a tensor on any device; an array, which is read from its file if it is memory-mapped; the path of a
            .npy, .safetensors, .parquet, .arrow or .feather file; a list of such paths, whose vectors follow one
            another; an iterable of batches that gives the same ones every time, see `BatchedVectors`; or vectors
            that are open already.
        column: the column of a table, or the tensor of a .safetensors file. None for the only one of vectors, or
            for a table of nothing but floats, whose columns are the channels.
        dim: the expected number of channels; None for any.

    Raises: TypeError for data of another kind, or whose values are not floats; ValueError for data of another
    shape, and for a file that is cut off, damaged or of another format; OSError for a file that cannot be read;
    ImportError for a table without pyarrow.
    """
    if dim is not None:
        dim = check_at_least("dim", dim, 1)
    vectors = _open(data, column)
    check_dim(vectors.name, vectors.dim, dim)
    return vectors


def _open(data: Data, column: str | None) -> Vectors:
    if isinstance(data, str | os.PathLike):
        return _open_file(os.fspath(data), column)
    if isinstance(data, list | tuple) and data and all(isinstance(each, str | os.PathLike) for each in data):
        return join([_open_file(os.fspath(path), column) for path in data])
    if column is not None:
        raise ValueError(f"column is {column!r}, but only files have columns; expected None")
    if isinstance(data, Vectors):
        return data
    if isinstance(data, Tensor):
        return TensorVectors(data)
    if isinstance(data, np.ndarray):
        return open_mapped(data) or ArrayVectors(data)
    if isinstance(data, Iterable) and not isinstance(data, bytes | bytearray | Mapping):
        return BatchedVectors(data)
    raise TypeError(
        f"data is {shown(data)}, expected a tensor, an array, the path of a file, or an iterable of batches"
    )


def _open_file(path: str, column: str | None) -> Vectors:
    suffix = Path(path).suffix.lower()
    if suffix not in READERS:
        raise ValueError(f"{path} has the suffix {suffix!r}, expected {', '.join(READERS)}")
    if suffix in WITH_COLUMNS:
        return READERS[suffix](path, column)
    if column is not None:
        raise ValueError(f"column is {column!r}, but a {suffix} file has no columns; expected None")
    return READERS[suffix](path)
