"""Every source gives the rows of its array, in blocks of any size, and at any positions."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from quantizers.vectors import Vectors, open_vectors
from tests.effort import examples
from tests.vector_sources.sources import SOURCES, Array, arrays, arrow, expected, parquet


def same(found: Tensor, wanted: Tensor) -> bool:
    return found.dtype == wanted.dtype and torch.equal(found.nan_to_num(nan=3e38), wanted.nan_to_num(nan=3e38))


@pytest.mark.parametrize("name", SOURCES)
@given(array=arrays(), rows=st.integers(1, 70), data=st.data())
@examples(10)
def test_every_source_gives_the_rows_of_its_array(
    name: str, array: Array, rows: int, data: st.DataObject, tmp_path: Path
) -> None:
    vectors, wanted = open_vectors(SOURCES[name](tmp_path, array)), expected(array)
    assert vectors.dim == array.shape[1]
    assert vectors.count in (len(array), None)
    for _ in range(2):
        blocks = list(vectors.blocks(rows))
        assert same(torch.cat(blocks), wanted)
        assert all(len(block) == rows for block in blocks[:-1])
        assert 1 <= len(blocks[-1]) <= rows
        assert vectors.count == len(array)
    positions = torch.tensor(
        sorted(data.draw(st.lists(st.integers(0, len(array) - 1), max_size=20))), dtype=torch.int64
    )
    assert same(vectors.take(positions), wanted[positions])


@pytest.mark.parametrize("name", SOURCES)
def test_positions_that_cannot_be_taken(name: str, tmp_path: Path) -> None:
    vectors = open_vectors(SOURCES[name](tmp_path, np.ones((9, 2), np.float32)))
    with pytest.raises(IndexError, match=r"positions contains 9, but .* has 9 vectors"):
        vectors.take(torch.tensor([3, 9]))
    with pytest.raises(IndexError, match="positions contains -1"):
        vectors.take(torch.tensor([-1, 3]))
    with pytest.raises(ValueError, match="do not ascend"):
        vectors.take(torch.tensor([4, 3]))
    with pytest.raises(TypeError, match="int64 tensor with one axis"):
        vectors.take(torch.tensor([0.5]))


def rows_of(data: Any, **options: Any) -> Tensor:
    return torch.cat(list(open_vectors(data, **options).blocks(4)))


def test_bfloat16_is_widened(tmp_path: Path) -> None:
    tensor = torch.randn(20, 3).bfloat16()
    save_file({"vectors": tensor}, tmp_path / "vectors.safetensors")
    assert torch.equal(rows_of(tensor), tensor.float())
    assert torch.equal(rows_of(tmp_path / "vectors.safetensors"), tensor.float())
    assert torch.equal(rows_of([tensor[:7], tensor[7:]]), tensor.float())


def test_a_copy_on_write_map_gives_its_changes(tmp_path: Path) -> None:
    """The file does not have them."""
    np.save(tmp_path / "vectors.npy", np.zeros((5, 2), np.float32))
    changed = np.load(tmp_path / "vectors.npy", mmap_mode="c")
    changed[3] = 1
    assert torch.equal(rows_of(changed), torch.from_numpy(np.array(changed)))


def test_sparse_positions_of_a_wide_file_are_sought(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(400, 5000)).astype(np.float32)
    np.save(tmp_path / "vectors.npy", array)
    positions = torch.tensor([0, 1, 5, 200, 201, 399])
    assert torch.equal(open_vectors(tmp_path / "vectors.npy").take(positions), torch.from_numpy(array)[positions])


@pytest.mark.parametrize("write", [parquet, arrow])
@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float32(), 2), pa.large_list(pa.float64())])
def test_nulls_become_rows_that_are_not_finite(write: Any, kind: Any, tmp_path: Path) -> None:
    lists = [None, [1.0, 2.0], [None, 3.0], None, [4.0, 5.0]]
    rows = rows_of(write(tmp_path, pa.table({"vectors": pa.array(lists, kind)})))
    assert rows.isfinite().all(-1).tolist() == [False, True, False, False, True]
    assert rows[2, 1] == 3
    assert rows[[1, 4]].tolist() == [[1, 2], [4, 5]]


def test_nulls_in_channels(tmp_path: Path) -> None:
    channels = {"a": pa.array([1.0, None]), "b": pa.array([2.0, 3.0], pa.float32())}
    rows = rows_of(parquet(tmp_path, pa.table(channels)))
    assert rows.dtype == torch.float64
    assert rows[0].tolist() == [1, 2]
    assert rows[1].isnan().tolist() == [True, False]


def test_a_tensor_of_fixed_shape_is_a_column_of_vectors(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    content = pa.table({"id": pa.array(range(20)), "vectors": pa.FixedShapeTensorArray.from_numpy_ndarray(array)})
    for write in (parquet, arrow):
        assert torch.equal(rows_of(write(tmp_path, content)), torch.from_numpy(array))


def test_a_column_is_chosen(tmp_path: Path) -> None:
    a, b = torch.randn(6, 2), torch.randn(6, 3)
    save_file({"a": a, "b": b}, tmp_path / "two.safetensors")
    content = pa.table(
        {"a": pa.array(a.tolist(), pa.list_(pa.float32())), "b": pa.array(b.tolist(), pa.list_(pa.float32()))}
    )
    for path in (tmp_path / "two.safetensors", parquet(tmp_path, content), arrow(tmp_path, content)):
        assert torch.equal(rows_of(path, column="b"), b)
        assert torch.equal(rows_of(path, column="a", dim=2), a)


def test_open_vectors_are_returned() -> None:
    vectors = open_vectors(torch.randn(6, 2))
    assert open_vectors(vectors, dim=2) is vectors
    with pytest.raises(ValueError, match="the tensor has vectors of 2 channels, expected 3"):
        open_vectors(vectors, dim=3)


def test_a_stream_must_repeat_itself() -> None:
    batches = [torch.randn(3, 2), torch.randn(4, 2)]
    vectors: Vectors = open_vectors(batches)
    assert sum(map(len, vectors.blocks(2))) == 7
    batches.pop()
    with pytest.raises(ValueError, match="the list gave 3 vectors in this pass, expected 7"):
        list(vectors.blocks(2))
