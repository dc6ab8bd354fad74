"""Which columns of a table contain vectors, and their values as an array. The tables are those of pyarrow."""

from typing import Any

import numpy as np

from quantizers.vectors.regions import Array

Type = Any  # pyarrow.DataType: pyarrow is an extra, and has no annotations
RecordBatch = Any


def choose_columns(path: str, schema: Any, column: str | None) -> list[str]:
    """The column called `column`, or the only one of lists of floats, or all columns if all are floats.

    Raises: ValueError if there is no such column, or several; TypeError for a column of another type.
    """
    types = {field.name: storage(field.type) for field in schema}
    if column is not None:
        if column not in types:
            raise ValueError(f"{path} has no column {column!r}, expected one of {list(types)}")
        if not is_vectors(types[column]):
            raise TypeError(f"column {column!r} of {path} has type {types[column]}, expected lists of floats")
        return [column]
    vectors = [name for name, kind in types.items() if is_vectors(kind)]
    if len(vectors) == 1:
        return vectors
    if vectors:
        raise ValueError(f"{path} has several columns of vectors: choose column from {vectors}")
    if types and all(is_float(kind) for kind in types.values()):
        return list(types)
    found = ", ".join(f"{name}: {kind}" for name, kind in types.items())
    raise ValueError(f"{path} has no column with lists of floats, only {found or 'no columns at all'}")


def storage(kind: Type) -> Type:
    """The type in which values of an extension type, such as a tensor of fixed shape, are stored."""
    while hasattr(kind, "storage_type"):
        kind = kind.storage_type
    return kind


def is_float(kind: Type) -> bool:
    return str(kind) in ("halffloat", "float", "double")


def is_vectors(kind: Type) -> bool:
    """Whether it is a list of floats, of any length or of a fixed one."""
    return str(kind).startswith(("list<", "large_list<", "fixed_size_list<")) and is_float(kind.value_type)


def width(schema: Any, columns: list[str]) -> int | None:
    """The number of channels; None if only the lists themselves say it."""
    if len(columns) > 1:
        return len(columns)
    kind = storage(schema.field(columns[0]).type)
    if is_float(kind):
        return 1
    return kind.list_size if str(kind).startswith("fixed_size_list<") else None


def item_dtype(schema: Any, columns: list[str]) -> "np.dtype[Any]":
    """float64 if any of the columns has it, otherwise float32."""
    kinds = [storage(schema.field(name).type) for name in columns]
    wide = any("double" in (str(kind), str(getattr(kind, "value_type", ""))) for kind in kinds)
    return np.dtype(np.float64 if wide else np.float32)


def values_of(
    batch: RecordBatch, columns: list[str], dim: int, dtype: "np.dtype[Any]", label: str, first: int
) -> Array:
    """The vectors [n, dim] of a record batch; nulls, of whole lists too, become NaN.

    Args:
        label: what messages call the column. first: the position of the batch's first row.

    Raises: ValueError for a list of another length.
    """
    arrays = [batch.column(batch.schema.get_field_index(name)) for name in columns]
    if is_float(storage(arrays[0].type)):
        return np.stack([_numbers(array, dtype) for array in arrays], 1)
    array = arrays[0]
    array = getattr(array, "storage", array)
    lengths = list_lengths(array)
    different = np.flatnonzero((lengths != dim) & (lengths >= 0))
    if len(different):
        row = int(different[0])
        raise ValueError(f"row {first + row} of {label} has {lengths[row]} channels, expected {dim}")
    flat = _numbers(array.drop_null().flatten(), dtype).reshape(-1, dim)
    if not array.null_count:
        return flat
    values = np.full((len(array), dim), np.nan, dtype)
    values[lengths >= 0] = flat
    return values


def list_lengths(array: Any) -> Array:
    """The length of each list, int64 [n]; −1 for null."""
    import pyarrow.compute

    lengths: Array = pyarrow.compute.list_value_length(array).fill_null(-1).to_numpy(zero_copy_only=False)
    return lengths.astype(np.int64)


def _numbers(array: Any, dtype: "np.dtype[Any]") -> Array:
    """Floats, with NaN for null."""
    numbers: Array = array.to_numpy(zero_copy_only=False)
    return numbers.astype(dtype, copy=False)
