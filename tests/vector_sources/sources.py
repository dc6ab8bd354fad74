"""The same vectors as every kind of data that `open_vectors` accepts."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet
import torch
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

Array = np.ndarray[Any, Any]
Build = Callable[[Path, Array], Any]

WIDTHS = {"f2": pa.float16(), "f4": pa.float32(), "f8": pa.float64()}


def expected(array: Array) -> Tensor:
    """What a source of this array gives."""
    return torch.from_numpy(array.astype(np.float64 if array.dtype.itemsize == 8 else np.float32))


def npy(folder: Path, array: Array) -> Path:
    np.save(folder / "vectors.npy", array)
    return folder / "vectors.npy"


def npy_version(folder: Path, array: Array, version: tuple[int, int]) -> Path:
    with open(folder / "vectors.npy", "wb") as file:
        np.lib.format.write_array(file, array, version)
    return folder / "vectors.npy"


def mapped(folder: Path, array: Array) -> Any:
    return np.load(npy(folder, array), mmap_mode="r")


def mapped_view(folder: Path, array: Array) -> Any:
    """Every second row and channel of a map in which the others are noise."""
    large = np.full((2 * array.shape[0] + 3, 2 * array.shape[1] + 1), -7, array.dtype)
    large[3::2, 1::2] = array
    return mapped(folder, large)[3::2, 1::2]


def safetensors(folder: Path, array: Array) -> Path:
    tensors = {"noise": torch.zeros(3), "vectors": torch.from_numpy(np.ascontiguousarray(array))}
    save_file(tensors, folder / "vectors.safetensors", metadata={"made": "here"})
    return folder / "vectors.safetensors"


def table(array: Array, kind: str) -> Any:
    """A table with a column of other things, and one of lists; or with a column a channel."""
    width = WIDTHS[array.dtype.str[1:]]
    if kind == "channels":
        return pa.table({f"channel{i}": pa.array(array[:, i], width) for i in range(array.shape[1])})
    list_type = {"list": pa.list_(width), "fixed": pa.list_(width, array.shape[1])}[kind]
    lists = pa.array(list(array), list_type)
    return pa.table({"id": pa.array(range(len(array))), "vectors": lists})


def parquet(folder: Path, content: Any) -> Path:
    pa.parquet.write_table(content, folder / "vectors.parquet", row_group_size=7)
    return folder / "vectors.parquet"


def arrow(folder: Path, content: Any) -> Path:
    with pa.ipc.new_file(folder / "vectors.arrow", content.schema) as writer:
        writer.write_table(content, max_chunksize=7)
    return folder / "vectors.arrow"


def stream(folder: Path, content: Any) -> Path:
    with pa.ipc.new_stream(folder / "vectors.arrow", content.schema) as writer:
        writer.write_table(content, max_chunksize=7)
    return folder / "vectors.arrow"


def feather(folder: Path, content: Any) -> Path:
    pa.feather.write_feather(content, str(folder / "vectors.feather"), compression="lz4")
    return folder / "vectors.feather"


def shards(folder: Path, array: Array, build: Build) -> list[Path]:
    """Files of 1, 2, 4, … rows, and of what is left."""
    paths, start = [], 0
    while start < len(array):
        part = folder / str(start)
        part.mkdir(exist_ok=True)
        paths.append(build(part, array[start : 2 * start + 1]))
        start = 2 * start + 1
    return paths


class Reused:
    """Batches of 7 rows which share one buffer, as of a reader that wastes no memory."""

    def __init__(self, array: Array) -> None:
        self.array = array

    def __iter__(self) -> Iterator[Tensor]:
        buffer = torch.empty(7, self.array.shape[1], dtype=torch.float64)
        for start in range(0, len(self.array), 7):
            rows = torch.from_numpy(self.array[start : start + 7].astype(np.float64))
            buffer[: len(rows)] = rows
            yield buffer[: len(rows)].to(expected(self.array[:0]).dtype)


def uneven(array: Array) -> list[Any]:
    """Batches of 0, 1, 2, … rows: arrays, tensors, and tuples of a tensor and a label."""
    starts = [number * (number - 1) // 2 for number in range(len(array) + 2)]
    batches = [array[start:stop] for start, stop in pairwise(starts)]
    forms: list[Callable[[Array], Any]] = [lambda x: x, torch.from_numpy, lambda x: (torch.from_numpy(x), 5)]
    return [forms[number % 3](batch) for number, batch in enumerate(batches)]


SOURCES: dict[str, Build] = {
    "tensor": lambda _, array: torch.from_numpy(array),
    "strided tensor": lambda _, array: torch.from_numpy(array).T.contiguous().T,
    "parameter": lambda _, array: torch.nn.Parameter(torch.from_numpy(array)),
    "array": lambda _, array: array,
    "array in Fortran's order": lambda _, array: np.asfortranarray(array),
    "reversed array": lambda _, array: np.ascontiguousarray(array[::-1, ::-1])[::-1, ::-1],
    "array of the other endianness": lambda _, array: array.astype(array.dtype.newbyteorder(">")),
    "npy": npy,
    "npy as a string": lambda folder, array: str(npy(folder, array)),
    "npy in Fortran's order": lambda folder, array: npy(folder, np.asfortranarray(array)),
    "npy of the other endianness": lambda folder, array: npy(folder, array.astype(array.dtype.newbyteorder(">"))),
    "npy, version 2": lambda folder, array: npy_version(folder, array, (2, 0)),
    "npy, version 3": lambda folder, array: npy_version(folder, array, (3, 0)),
    "memory map": mapped,
    "memory map in Fortran's order": lambda folder, array: mapped(folder, np.asfortranarray(array)),
    "view of a memory map": mapped_view,
    "view of a map in Fortran's order": lambda folder, array: mapped_view(folder, array.T).T,
    "array on a memory map": lambda folder, array: np.asarray(mapped(folder, array)),
    "reversed memory map": lambda folder, array: mapped(folder, array[::-1])[::-1],
    "safetensors": safetensors,
    "parquet, lists": lambda folder, array: parquet(folder, table(array, "list")),
    "parquet, lists of fixed size": lambda folder, array: parquet(folder, table(array, "fixed")),
    "parquet, a column a channel": lambda folder, array: parquet(folder, table(array, "channels")),
    "arrow": lambda folder, array: arrow(folder, table(array, "list")),
    "arrow, lists of fixed size": lambda folder, array: arrow(folder, table(array, "fixed")),
    "arrow stream": lambda folder, array: stream(folder, table(array, "fixed")),
    "feather": lambda folder, array: feather(folder, table(array, "list")),
    "several npy files": lambda folder, array: shards(folder, array, npy),
    "several npy files, one by columns": lambda folder, array: shards(
        folder, array, lambda part, rows: npy(part, np.asfortranarray(rows))
    ),
    "several parquet files": lambda folder, array: shards(
        folder, array, lambda part, x: parquet(part, table(x, "list"))
    ),
    "several arrow files": lambda folder, array: shards(
        folder, array, lambda part, x: arrow(part, table(x, "list"))
    ),
    "uneven batches": lambda _, array: uneven(array),
    "batches in one buffer": lambda _, array: Reused(array),
    "DataLoader": lambda _, array: DataLoader(TensorDataset(torch.from_numpy(array)), batch_size=5),
}


@st.composite
def arrays(draw: st.DrawFn, largest: int = 60) -> Array:
    """[n, dim] of float16, float32 or float64, with a few values that are not finite."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = draw(st.integers(1, largest)), draw(st.integers(1, 5))
    array = rng.normal(size=shape)
    array[rng.random(shape) < draw(st.sampled_from([0.0, 0.05]))] = draw(st.sampled_from([np.nan, np.inf]))
    return array.astype(draw(st.sampled_from(list(WIDTHS))))
