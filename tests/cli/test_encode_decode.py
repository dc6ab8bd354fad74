"""`encode` and `decode` give what the quantizer gives, in any format and any block size."""

from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import quantizers
from quantizers.cli.reading import read_blocks
from quantizers.cli.writing import smallest_type
from quantizers.core.base import Quantizer
from tests.cli.conftest import COUNT, DIM, Run, clustered


def saved(name: str, **options: int) -> Quantizer:
    """A quantizer with random codes, in the folder `codebook`."""
    quantizer = quantizers.create(name, DIM, codebook_size=16, **options).eval()
    quantizers.save(quantizer, "codebook")
    return quantizer


@pytest.mark.parametrize("form", ["npy", "parquet", "qbs"])
@pytest.mark.parametrize(("name", "options"), [("vq", {}), ("residual", {"num_quantizers": 3})])
def test_there_and_back(run: Run, items: Path, form: str, name: str, options: dict[str, int]) -> None:
    quantizer = saved(name, **options)
    x = torch.from_numpy(clustered())
    x[7] = torch.nan
    np.save(items, x.numpy())
    small = ["--quantizer", "codebook", "--batch-size", 64]
    result = run("encode", items, *small, "--out", f"codes.{form}")
    assert result.exit_code == 0, result.output
    assert "300 vectors encoded" in result.output
    assert "1 of them are not finite and have index -1" in result.output
    result = run("decode", f"codes.{form}", *small, "--out", "vectors.npy")
    assert result.exit_code == 0, result.output
    values = np.load("vectors.npy")
    assert values.dtype == np.float32
    assert np.array_equal(values, quantizer.decode(quantizer.encode(x)).detach().numpy())
    assert sorted(path.name for path in Path().glob("*.*")) == [f"codes.{form}", "items.npy", "vectors.npy"]


def test_a_table_has_names(run: Run, items: Path) -> None:
    saved("vq")
    Path("names.txt").write_text("".join(f"{row}é\n" for row in range(COUNT)), encoding="utf-8")
    assert run("encode", items, "--quantizer", "codebook", "--out", "c.parquet").exit_code == 0
    assert pyarrow.parquet.read_table("c.parquet")["item"].to_pylist() == list(range(COUNT))
    assert (
        run("encode", items, "--quantizer", "codebook", "--out", "c.parquet", "--items", "names.txt").exit_code
        == 0
    )
    table = pyarrow.parquet.read_table("c.parquet")
    assert table["item"].to_pylist() == [f"{row}é" for row in range(COUNT)]
    assert table.column_names == ["item", "level_1"]


def test_a_bitstream_is_that_of_the_library(run: Run, items: Path) -> None:
    quantizer = saved("residual", num_quantizers=2)
    assert run("encode", items, "--quantizer", "codebook", "--out", "codes.qbs").exit_code == 0
    indices = quantizers.bitstream.decompress(Path("codes.qbs").read_bytes())
    assert torch.equal(indices, quantizer.encode(torch.from_numpy(clustered())))


def test_an_error_in_the_middle_leaves_the_earlier_file(run: Run) -> None:
    saved("vq")
    np.save("codes.npy", np.array([3, 2, 1, 99]))
    Path("vectors.npy").write_text("earlier")
    result = run("decode", "codes.npy", "--quantizer", "codebook", "--out", "vectors.npy", "--batch-size", 2)
    assert result.exit_code == 2
    assert Path("vectors.npy").read_text() == "earlier"
    assert not [path for path in Path().iterdir() if path.name.startswith(".")]


def test_ctrl_c_writes_nothing(run: Run, items: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved("vq")

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("quantizers.cli.encode.encode_vectors", stop)
    result = run("encode", items, "--quantizer", "codebook", "--out", "codes.npy")
    assert result.exit_code == 130
    assert "Nothing was written" in result.output
    assert sorted(path.name for path in Path().iterdir()) == ["codebook", "items.npy"]


@given(rows=st.integers(1, 50), count=st.integers(1, 40), levels=st.integers(1, 3))
def test_blocks_are_the_table(rows: int, count: int, levels: int) -> None:
    """However it is divided."""
    table = np.arange(count * levels).reshape(count, levels)
    np.save("table.npy", table)
    blocks = list(read_blocks(Path("table.npy"), levels, rows))
    assert [len(block) for block in blocks[:-1]] == [rows] * (len(blocks) - 1)
    assert np.array_equal(torch.cat(blocks).numpy(), table)


@given(st.integers(0, 2**62))
def test_the_smallest_type_holds_the_indices(largest: int) -> None:
    kind = np.iinfo(smallest_type(largest))
    assert kind.min <= -1
    assert largest <= kind.max
    assert kind.bits == 16 or largest > np.iinfo(f"int{kind.bits // 2}").max
