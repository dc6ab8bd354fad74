"""A pass over a file leaves nothing of it in memory."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

MOST = 64 * 2**20  # bytes that a pass may add to what the process needs anyway

PASS = """
import resource, sys
import numpy as np, torch
from quantizers.vectors import open_vectors
from quantizers.vectors.sampling import sample

path, mapped = sys.argv[1], sys.argv[2] == "mapped"
data = np.load(path, mmap_mode="r") if mapped else path
vectors = open_vectors(data)
next(vectors.blocks(1))  # loads pyarrow
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = sum(len(block) for block in vectors.blocks(4096))
drawn = len(sample(vectors, 500, seed=1).rows)
print(rows, drawn, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def grown(path: Path, way: str) -> tuple[int, int, int]:
    """The rows read, the rows drawn, and the bytes by which the peak of resident memory grew."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PASS, str(path), way], capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr
    rows, drawn, bytes_ = map(int, done.stdout.split())
    return rows, drawn, bytes_


@pytest.mark.long("an end-to-end run")
@pytest.mark.slow
@pytest.mark.parametrize(("way", "order"), [("path", "C"), ("mapped", "C"), ("path", "F")])
def test_a_pass_over_400_megabytes_of_zeros(way: str, order: str, tmp_path: Path) -> None:
    """The file is sparse, so that it takes no space on the disk."""
    path = tmp_path / "vectors.npy"
    header = {"descr": "<f4", "fortran_order": order == "F", "shape": (400_000, 250)}
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 4 * 400_000 * 250)
    rows, drawn, growth = grown(path, way)
    assert (rows, drawn) == (400_000, 500)
    assert growth < MOST


@pytest.mark.slow
def test_a_pass_over_a_parquet_file_of_one_row_group(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 2**30, 100_000 * 256, dtype=np.int32).view(np.float32)
    content = pa.table({"vectors": pa.FixedSizeListArray.from_arrays(pa.array(values), 256)})
    pyarrow.parquet.write_table(
        content, tmp_path / "vectors.parquet", row_group_size=100_000, use_dictionary=False, compression="none"
    )
    assert (tmp_path / "vectors.parquet").stat().st_size > 1.5 * MOST
    rows, drawn, growth = grown(tmp_path / "vectors.parquet", "path")
    assert (rows, drawn) == (100_000, 500)
    assert growth < MOST
