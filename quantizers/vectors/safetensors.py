"""Vectors in a .safetensors file: its header, by the published format, and plain reads of one tensor.

The format is eight bytes of the header's length N, N bytes of JSON, and the data. The JSON maps the name of each
tensor to its dtype, its shape, and its first byte and its end within the data: see
https://huggingface.co/docs/safetensors. The package safetensors would map the file into memory, see `regions.py`.
"""

import json
import os
from typing import Any, BinaryIO

import numpy as np
from torch import Tensor

from quantizers.vectors.regions import Array, Region, RegionVectors, opened, read_bytes
from quantizers.vectors.values import FLOATS, check_shape, from_numpy

LENGTH = 8  # bytes of the header's length
LONGEST_HEADER = 10**8  # bytes, by the format
DTYPES = {"F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8"}  # NumPy has no bfloat16: its bits, see below

Header = dict[str, dict[str, Any]]


def open_safetensors(path: str, column: str | None = None) -> RegionVectors:
    """The vectors of the tensor called `column`, or of the only one with two axes and floats.

    Raises: as RegionVectors; TypeError for a tensor of another dtype; ValueError for a file of another format, for
    no tensor of this name, and without a name unless there is exactly one tensor of vectors.
    """
    with opened(path) as file:
        header, begin = _read_header(path, file)
    name = _choose(path, header, column)
    label = f"tensor {name!r} of {path}"
    dtype, shape = header[name]["dtype"], tuple(header[name]["shape"])
    if dtype not in DTYPES:
        raise TypeError(f"{label} has dtype {dtype}, expected {FLOATS}")
    rows, channels = check_shape(label, shape)
    stored = np.dtype(DTYPES[dtype])
    first, end = header[name]["data_offsets"]
    if end - first != rows * channels * stored.itemsize:
        raise ValueError(f"{label} has {end - first} bytes, expected {rows * channels * stored.itemsize}")
    region = Region(path, begin + first, stored, (rows, channels), (channels * stored.itemsize, stored.itemsize))
    return RegionVectors(label, region, _from_bfloat16 if dtype == "BF16" else from_numpy)


def _from_bfloat16(bits: Array) -> Tensor:
    """bfloat16 is the upper half of float32."""
    return from_numpy((bits.astype(np.uint32) << 16).view(np.float32))


def _read_header(path: str, file: BinaryIO) -> tuple[Header, int]:
    """The entries of all tensors, and where the data begins."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(read_bytes(file, 0, min(LENGTH, size)).tobytes(), "little")
    if length > LONGEST_HEADER:
        raise ValueError(f"{path} is not a .safetensors file: its header would have {length} bytes")
    missing = LENGTH + length - size
    if missing > 0:
        raise ValueError(
            f"{path} is cut off, or not a .safetensors file: {missing} bytes of its header are missing"
        )
    try:
        content = json.loads(read_bytes(file, LENGTH, length).tobytes())
        header = {str(name): entry for name, entry in content.items() if name != "__metadata__"}
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is not a .safetensors file: its header is not a JSON object") from error
    for name, entry in header.items():
        if not _is_entry(entry):
            raise ValueError(f"{path} is not a .safetensors file: its header describes {name!r} as {entry!r}")
    return header, LENGTH + length


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str):
        return False
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    if not isinstance(shape, list) or not isinstance(offsets, list) or len(offsets) != 2:
        return False
    return all(type(number) is int and number >= 0 for number in [*shape, *offsets])


def _choose(path: str, header: Header, column: str | None) -> str:
    if column is not None:
        if column not in header:
            raise ValueError(f"{path} has no tensor {column!r}, expected one of {sorted(header)}")
        return column
    vectors = [name for name, entry in header.items() if len(entry["shape"]) == 2 and entry["dtype"] in DTYPES]
    if len(vectors) == 1:
        return vectors[0]
    if vectors:
        raise ValueError(f"{path} has several tensors of vectors: choose column from {sorted(vectors)}")
    shown = {name: (entry["dtype"], entry["shape"]) for name, entry in sorted(header.items())}
    raise ValueError(f"{path} has no tensor with two axes and floats, only {shown}")
