"""Vectors in NumPy's format: a file, or the file behind a memory map."""

import mmap
import os
from typing import Any

import numpy as np

from quantizers.vectors.regions import Region, RegionVectors, opened
from quantizers.vectors.values import check_dtype, check_shape


def open_npy(path: str) -> RegionVectors:
    """The vectors of a .npy file, in C's or Fortran's order, of format version 1, 2 or 3.

    Raises: as RegionVectors; ValueError for a file of another format.
    """
    with opened(path) as file:
        try:
            version = np.lib.format.read_magic(file)
            reads = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
                (3, 0): np.lib.format.read_array_header_2_0,  # differs in the names of fields, which vectors lack
            }[version]
            shape, by_column, dtype = reads(file)
        except (ValueError, KeyError) as error:
            raise ValueError(f"{path} is not a .npy file, or its header is cut off or damaged: {error}") from error
        offset = file.tell()
    check_dtype(path, dtype)
    rows, channels = check_shape(path, shape)
    item = dtype.itemsize
    strides = (item, rows * item) if by_column and rows > 1 and channels > 1 else (channels * item, item)
    return RegionVectors(path, Region(path, offset, dtype, (rows, channels), strides))


def open_mapped(array: "np.ndarray[Any, Any]") -> RegionVectors | None:
    """The vectors of a memory-mapped array, read from its file; None for any other. Raises: as `open_npy`."""
    region = _mapped_region(array)
    if region is None:
        return None
    check_dtype(region.path, region.dtype)
    return RegionVectors(region.path, region)


def _mapped_region(array: "np.ndarray[Any, Any]") -> Region | None:
    """Where the array lies in its file; None unless it is memory-mapped, and if only the map has its values.

    Changes of a copy-on-write map are not in its file. Strides that are not positive cannot be read in order.
    """
    owner: Any = array
    while isinstance(owner, np.ndarray) and not isinstance(owner, np.memmap):
        owner = owner.base
    if not isinstance(owner, np.memmap) or array.ndim != 2 or min(array.strides) <= 0 or not array.size:
        return None
    if owner.mode == "c" or owner.filename is None or not os.path.exists(owner.filename):
        return None
    # A view has the offset of the whole map, so its own follows from the addresses.
    begin = owner.offset - owner.offset % mmap.ALLOCATIONGRANULARITY
    address = np.frombuffer(owner._mmap, np.uint8).ctypes.data  # type: ignore[attr-defined]
    offset = begin + array.ctypes.data - address
    shape, strides = (array.shape[0], array.shape[1]), (array.strides[0], array.strides[1])
    return Region(str(owner.filename), offset, array.dtype, shape, strides)
