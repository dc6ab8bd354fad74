"""Open anything that contains vectors."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from quantizers.core.arguments.checks import check_at_least, shown
from quantizers.vectors.arrays import ArrayVectors, TensorVectors
from quantizers.vectors.base import Vectors
from quantizers.vectors.npy import mapped_region, open_npy
from quantizers.vectors.regions import RegionVectors
from quantizers.vectors.values import check_dim

Data = Tensor | np.ndarray[Any, Any] | str | os.PathLike[str] | Iterable[Any] | Vectors

READERS: dict[str, Callable[..., Vectors]] = {".npy": open_npy}
"""By the suffix of a file; those in `WITH_COLUMNS` take the name of a column as well."""

WITH_COLUMNS: frozenset[str] = frozenset()


def open_vectors(data: Data, *, column: str | None = None, dim: int | None = None) -> Vectors:
    """Open vectors without reading them.

    Args:
        data: a tensor on any device or an array [count, dim]; the path of a .npy file.
        column: the column or tensor of a file that has several.
        dim: the expected number of channels; None for any.

    Raises: TypeError for data of another kind, or whose values are not floats; ValueError for data of another
    shape; OSError for a file that cannot be read.
    """
    if dim is not None:
        dim = check_at_least("dim", dim, 1)
    vectors = _open(data, column)
    check_dim(vectors.name, vectors.dim, dim)
    return vectors


def _open(data: Data, column: str | None) -> Vectors:
    if isinstance(data, str | os.PathLike):
        return _open_file(os.fspath(data), column)
    if column is not None:
        raise ValueError(f"column is {column!r}, but only files have columns; expected None")
    if isinstance(data, Vectors):
        return data
    if isinstance(data, Tensor):
        return TensorVectors(data)
    if isinstance(data, np.ndarray):
        region = mapped_region(data)
        return ArrayVectors(data) if region is None else RegionVectors(region.path, region)
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
