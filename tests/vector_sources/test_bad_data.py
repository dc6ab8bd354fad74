"""Data that has no vectors, or not the expected ones, is answered with a sentence."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import save_file

from quantizers.vectors import open_vectors, tables
from tests.vector_sources.sources import arrow, feather, parquet, stream, table

ONES = np.ones((9, 2), np.float32)


def read(data: Any, **options: Any) -> None:
    for _ in open_vectors(data, **options).blocks(4):
        pass


def saved(folder: Path, array: Any) -> Path:
    np.save(folder / "vectors.npy", array)
    return folder / "vectors.npy"


def cut(path: Path, size: int) -> Path:
    """The file without its last `size` bytes."""
    path.write_bytes(path.read_bytes()[:-size])
    return path


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (np.ones(9, np.float32), ValueError, r"has shape \[9\], expected two axes: vectors and channels"),
        (np.ones((2, 3, 4), np.float32), ValueError, r"has shape \[2, 3, 4\], expected two axes"),
        (np.ones((3, 0), np.float32), ValueError, r"has shape \[3, 0\], expected at least one channel"),
        (np.ones((0, 3), np.float32), ValueError, "has no vectors, expected at least one"),
        (np.ones((3, 2), np.int64), TypeError, "has dtype int64, expected float16, bfloat16, float32 or float64"),
        (np.ones((3, 2), bool), TypeError, "has dtype bool, expected float16"),
        (np.ones((3, 2), np.complex64), TypeError, "has dtype complex64, expected float16"),
    ],
)
@pytest.mark.parametrize("build", [torch.from_numpy, np.asarray, "npy", "mapped", "batches", "safetensors"])
def test_other_shapes_and_dtypes(array: Any, error: Any, message: str, build: Any, tmp_path: Path) -> None:
    data: Any
    if build == "npy":
        data = saved(tmp_path, array)
    elif build == "mapped":
        data = np.load(saved(tmp_path, array), mmap_mode="r") if array.size else array
    elif build == "batches":
        data = [torch.from_numpy(array)]
    elif build == "safetensors":
        save_file({"vectors": torch.from_numpy(array)}, tmp_path / "vectors.safetensors")
        # The format has names of its own for dtypes.
        message = "has dtype [A-Z0-9]+, expected float16" if error is TypeError else message
        with pytest.raises(error, match=message):
            read(tmp_path / "vectors.safetensors", column="vectors")
        return
    else:
        data = build(array)
    with pytest.raises(error, match=message):
        read(data)


@pytest.mark.parametrize("array", [np.array([["a", "b"]]), np.array([[1.0, None]], object), np.ones((3, 2), "V2")])
def test_dtypes_of_numpy_alone(array: Any, tmp_path: Path) -> None:
    for data in (array, [array], saved(tmp_path, array)):
        with pytest.raises(TypeError, match=r"has dtype .*, expected float16, bfloat16, float32 or float64"):
            read(data)


@pytest.mark.parametrize("data", [None, 5, b"vectors.npy", {"vectors": ONES}, open_vectors])
def test_data_of_other_kinds(data: Any) -> None:
    with pytest.raises(
        TypeError, match="expected a tensor, an array, the path of a file, or an iterable of batches"
    ):
        open_vectors(data)


def test_sparse_tensors() -> None:
    with pytest.raises(TypeError, match="expected a dense tensor"):
        open_vectors(torch.ones(3, 2).to_sparse())


@pytest.mark.parametrize("iterator", [iter([ONES]), (x for x in [ONES]), map(np.asarray, [ONES])])
def test_an_iterator_can_be_read_only_once(iterator: Any) -> None:
    with pytest.raises(TypeError, match=r"can be read only once, .* pass a list of batches, or an object whose"):
        open_vectors(iterator)


@pytest.mark.parametrize(
    ("batches", "error", "message"),
    [
        ([], ValueError, "the list has no batches"),
        ([ONES[:0], ONES[:0]], ValueError, "the list has no vectors, expected at least one"),
        ([[1.0, 2.0]], TypeError, r"batch 0 of the list is \[1.0, 2.0\], expected a tensor, an array, or a tuple"),
        ([ONES, {"x": ONES}], TypeError, "batch 1 of the list is .*, expected a tensor, an array, or a tuple"),
        ([ONES, ()], TypeError, r"batch 1 of the list is \(\), expected a tensor"),
        ([ONES, ONES[:, :1]], ValueError, "batch 1 of the list has vectors of 1 channels, expected 2"),
        ([ONES, ONES[0]], ValueError, r"batch 1 of the list has shape \[2\], expected two axes"),
        ([ONES, ONES.astype(np.int64)], TypeError, "batch 1 of the list has dtype int64, expected float16"),
        ([ONES, ONES.astype(np.float64)], TypeError, "batch 1 of the list has .*float64, expected .*float32"),
    ],
)
def test_bad_batches(batches: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        read(batches)


def test_another_dim(tmp_path: Path) -> None:
    content = table(ONES, "fixed")
    for data in (torch.from_numpy(ONES), ONES, saved(tmp_path, ONES), [ONES], parquet(tmp_path, content)):
        with pytest.raises(ValueError, match="has vectors of 2 channels, expected 3"):
            open_vectors(data, dim=3)
    with pytest.raises(ValueError, match="dim is 0, expected an integer of at least 1"):
        open_vectors(ONES, dim=0)
    with pytest.raises(ValueError, match="rows is 0, expected an integer of at least 1"):
        next(open_vectors(ONES).blocks(0))


@pytest.mark.parametrize("suffix", [".npy", ".safetensors", ".parquet", ".arrow", ".feather"])
def test_files_that_are_not_there_or_something_else(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"vectors{suffix}"
    with pytest.raises(FileNotFoundError, match=rf"vectors\{suffix} does not exist"):
        open_vectors(path)
    for content in (b"", b"abc", b"some text that is longer than a header" * 100):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"not an? .* file"):
            open_vectors(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(IsADirectoryError, match="is a folder, expected a file"):
        open_vectors(path)


@pytest.mark.parametrize("build", [saved, lambda folder, array: arrow(folder, table(array, "list"))])
def test_files_that_do_not_fit_together(build: Callable[[Path, Any], Path], tmp_path: Path) -> None:
    paths = []
    for name, array in {
        "a": ONES,
        "b": ONES,
        "wide": np.ones((2, 3), np.float32),
        "double": np.ones((2, 2)),
    }.items():
        (tmp_path / name).mkdir()
        paths.append(build(tmp_path / name, array))
    with pytest.raises(ValueError, match=r"wide.* has vectors of 3 channels, expected 2"):
        open_vectors(paths[:3])
    with pytest.raises(TypeError, match=r"double.* has values of torch.float64, expected torch.float32"):
        read([paths[0], paths[3]])
    with pytest.raises(FileNotFoundError, match=r"missing.npy does not exist"):
        open_vectors([*paths, "missing.npy"])
    with pytest.raises(IndexError, match=r"the 2 files from .* to .* has"):
        open_vectors(paths[:2]).take(torch.tensor([18]))


def test_an_unknown_suffix(tmp_path: Path) -> None:
    message = "has the suffix '.csv', expected .npy, .safetensors, .parquet, .arrow, .feather"
    with pytest.raises(ValueError, match=message):
        open_vectors(tmp_path / "vectors.csv")


def test_truncated_npy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"vectors.npy is cut off: 5 bytes are missing at its end"):
        open_vectors(cut(saved(tmp_path, ONES), 5))
    with pytest.raises(ValueError, match="its header is cut off or damaged"):
        open_vectors(cut(saved(tmp_path, ONES), 9 * 2 * 4 + 5))


def test_a_file_that_is_cut_off_while_it_is_read(tmp_path: Path) -> None:
    vectors = open_vectors(saved(tmp_path, ONES))
    blocks = vectors.blocks(4)
    next(blocks)
    cut(tmp_path / "vectors.npy", 20)
    with pytest.raises(OSError, match=r"vectors.npy cannot be read: it ends 12 bytes before"):
        list(blocks)
    with pytest.raises(OSError, match=r"vectors.npy cannot be read: it ends 4 bytes before"):
        vectors.take(torch.tensor([6]))
    (tmp_path / "vectors.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"vectors.npy does not exist"):
        next(vectors.blocks(4))


def test_bad_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "vectors.safetensors"
    tensor = torch.from_numpy(ONES)

    def write(**tensors: torch.Tensor) -> Path:
        save_file({name: value.clone() for name, value in tensors.items()}, path)
        return path

    with pytest.raises(ValueError, match="is cut off: 5 bytes are missing at its end"):
        open_vectors(cut(write(a=tensor), 5))
    with pytest.raises(
        ValueError, match=r"is cut off, or not a .safetensors file: 4 bytes of its header are missing"
    ):
        open_vectors(cut(write(a=tensor), 9 * 2 * 4 + 4))
    with pytest.raises(ValueError, match=r"several tensors of vectors: choose column from \['a', 'b'\]"):
        open_vectors(write(a=tensor, b=tensor, c=tensor[0]))
    with pytest.raises(ValueError, match=r"no tensor with two axes and floats, only {'a': \('F32', \[2\]\)}"):
        open_vectors(write(a=tensor[0]))
    with pytest.raises(ValueError, match=r"no tensor 'x', expected one of \['a'\]"):
        open_vectors(write(a=tensor), column="x")


@pytest.mark.parametrize(
    "header",
    [
        b"[1]",
        b'{"a": 5}',
        b'{"a": {"dtype": "F32", "shape": [1, 2]}}',
        b'{"a": {"dtype": "F32", "shape": [1, -2], "data_offsets": [0, 8]}}',
        b'{"a": {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8, 9]}}',
        b'{"a": {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 4]}}',
    ],
)
def test_damaged_headers_of_safetensors(header: bytes, tmp_path: Path) -> None:
    path = tmp_path / "vectors.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(ValueError, match=r"is not a .safetensors file: its header|has 4 bytes, expected 8"):
        open_vectors(path)


@pytest.mark.parametrize("write", [parquet, arrow, feather, stream])
def test_bad_tables(write: Callable[[Path, Any], Path], tmp_path: Path) -> None:
    def content(**columns: Any) -> Path:
        return write(tmp_path, pa.table(columns))

    ids, lists = pa.array([1, 2]), pa.array([[1.0, 2.0], [3.0, 4.0]])
    with pytest.raises(
        ValueError, match=r"has no column with lists of floats, only id: int64, words: list<\w+: string>"
    ):
        open_vectors(content(id=ids, words=pa.array([["a"], ["b"]])))
    with pytest.raises(ValueError, match=r"several columns of vectors: choose column from \['a', 'b'\]"):
        open_vectors(content(a=lists, b=lists, id=ids))
    with pytest.raises(ValueError, match=r"has no column 'x', expected one of \['id', 'a'\]"):
        open_vectors(content(id=ids, a=lists), column="x")
    with pytest.raises(TypeError, match=r"column 'id' of .* has type int64, expected lists of floats"):
        open_vectors(content(id=ids, a=lists), column="id")
    with pytest.raises(ValueError, match=r"row 30 of column 'a' of .* has 1 channels, expected 2"):
        read(content(a=pa.array([[1.0, 2.0]] * 30 + [[1.0]])))
    with pytest.raises(ValueError, match="expected at least one channel"):
        open_vectors(content(a=pa.array([[], [1.0]])))
    with pytest.raises(ValueError, match="has only nulls, expected lists of floats"):
        open_vectors(content(a=pa.array([None, None], pa.list_(pa.float32()))))
    for kind in (pa.list_(pa.float32()), pa.list_(pa.float32(), 2)):
        with pytest.raises(ValueError, match="has no vectors, expected at least one"):
            read(content(a=pa.array([], kind)))


@pytest.mark.parametrize("write", [parquet, arrow, feather, stream])
@pytest.mark.parametrize("size", [3, 400, 3000])
def test_truncated_tables(write: Callable[[Path, Any], Path], size: int, tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(2000, 2)).astype(np.float32)
    with pytest.raises((ValueError, OSError), match="cut off"):
        read(cut(write(tmp_path, table(array, "fixed")), size))


def test_the_old_format_of_feather(tmp_path: Path) -> None:
    (tmp_path / "vectors.feather").write_bytes(b"FEA1" + bytes(100))
    with pytest.raises(ValueError, match="version 1 of Feather's format, expected version 2"):
        open_vectors(tmp_path / "vectors.feather")


def test_pyarrow_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = parquet(tmp_path, table(ONES, "list"))
    monkeypatch.setitem(sys.modules, "pyarrow.ipc", None)
    with pytest.raises(ImportError, match=r"needs pyarrow: pip install 'quantizers-torch\[parquet\]'"):
        tables.open_parquet(str(path))


def test_a_column_of_what_has_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="column is 'x', but only files have columns"):
        open_vectors(ONES, column="x")
    with pytest.raises(ValueError, match=r"column is 'x', but a .npy file has no columns"):
        open_vectors(saved(tmp_path, ONES), column="x")
