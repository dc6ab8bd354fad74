"""A .npy file written block by block is complete, or what was there before stays."""

import errno
import io
import os
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quantizers.vectors.files import NewFile, NpyWriter


@given(
    sizes=st.lists(st.integers(0, 9), max_size=6),
    columns=st.none() | st.integers(1, 4),
    dtype=st.sampled_from(["u1", "i2", "u4", "i8"]),
)
def test_the_file_has_all_blocks(sizes: list[int], columns: int | None, dtype: str, tmp_path: Path) -> None:
    shape = () if columns is None else (columns,)
    whole = torch.randint(0, 100, (sum(sizes), *shape))
    path = tmp_path / "codes.npy"
    with NpyWriter(path, dtype, columns) as file:
        for block in whole.split(sizes):
            file.append(block)
    found = np.load(path)
    assert found.dtype == np.dtype(dtype)
    assert np.array_equal(found, whole.numpy())
    assert os.listdir(tmp_path) == ["codes.npy"]


def test_floats_and_arrays(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    with NpyWriter(tmp_path / "values.npy", np.float32, 3) as file:
        file.append(values[:2])
        file.append(values[:1:-1][::-1])
        assert not (tmp_path / "values.npy").exists()
    assert np.array_equal(np.load(tmp_path / "values.npy"), values)


def old(folder: Path) -> Path:
    np.save(folder / "codes.npy", np.arange(7))
    return folder / "codes.npy"


def check_old(path: Path) -> None:
    assert np.array_equal(np.load(path), np.arange(7))
    assert os.listdir(path.parent) == [path.name]


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    path = old(tmp_path)
    file = NpyWriter(path, np.int64)
    file.append(torch.arange(3))
    with pytest.raises(KeyboardInterrupt), file:
        raise KeyboardInterrupt
    check_old(path)
    with pytest.raises(ValueError, match=r"codes.npy is closed already"):
        file.append(torch.arange(3))


@pytest.mark.parametrize(
    ("block", "error", "message"),
    [
        (torch.tensor([3, 70000]), ValueError, "values from 3 to 70000, which uint16 cannot hold"),
        (torch.tensor([-1]), ValueError, "values from -1 to -1, which uint16 cannot hold"),
        (torch.tensor([1.0]), TypeError, "block has dtype float32, expected uint16"),
        (torch.zeros(3, 2, dtype=torch.int64), ValueError, r"block has shape \[3, 2\], expected \[n\]"),
        (torch.tensor(3), ValueError, r"block has shape \[\], expected \[n\]"),
    ],
)
def test_bad_blocks(block: Any, error: Any, message: str, tmp_path: Path) -> None:
    path = old(tmp_path)
    with pytest.raises(error, match=message), NpyWriter(path, np.uint16) as file:
        file.append(block)
    check_old(path)


class FullDisk(io.FileIO):
    """A file on a disk that is full within the second block."""

    def write(self, content: Any) -> int:
        left = 500 - self.tell()
        if left <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(memoryview(content)[:left])


@pytest.mark.parametrize("exists", [True, False])
def test_a_full_disk(exists: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two blocks of 272 bytes, after a header of 128."""
    path = old(tmp_path) if exists else tmp_path / "codes.npy"
    monkeypatch.setattr("quantizers.vectors.files.io.FileIO", FullDisk)
    kept = "the file of this name is as it was" if exists else "no incomplete file remains"
    message = rf"codes.npy was not written: there is no space for its 672 bytes so far, .*nothing was lost, {kept}"
    file = NpyWriter(path, np.int64)
    file.append(torch.arange(34))
    with pytest.raises(OSError, match=message) as caught:
        file.append(torch.arange(34))
    assert caught.value.errno == errno.ENOSPC
    if exists:
        check_old(path)
    else:
        assert not os.listdir(tmp_path)


def test_a_disk_that_fails_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> NoReturn:
        raise OSError(errno.EIO, "Input/output error")

    path = old(tmp_path)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="was not written: Input/output error; nothing was lost"):
        NpyWriter(path, np.int64).close()
    check_old(path)


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"the folder .*missing does not exist"):
        NewFile(tmp_path / "missing" / "codes.npy")
    with pytest.raises(IsADirectoryError, match="is a folder, expected the name of a file"):
        NewFile(tmp_path)
    with pytest.raises(ValueError, match="columns is 0, expected an integer of at least 1"):
        NpyWriter(tmp_path / "codes.npy", np.int64, 0)


def test_any_bytes(tmp_path: Path) -> None:
    with NewFile(tmp_path / "report.json") as file:
        file.write(b"{")
        file.write(b"}")
    file.close()
    assert (tmp_path / "report.json").read_bytes() == b"{}"
