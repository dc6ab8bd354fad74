"""`extend` adds items, and moves none."""

from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from quantizers.item_ids import SemanticIDs
from tests.cli.conftest import COUNT, Run, clustered


@pytest.mark.parametrize("policy", ["next_code", "extra_level"])
@pytest.mark.parametrize("form", ["npy", "parquet"])
def test_old_items_stay(fit: Run, run: Run, policy: str, form: str) -> None:
    assert fit("--collisions", policy, "--format", form).exit_code == 0
    old = np.load("ids/ids.npy")
    for seed in (0, 1):  # the same items again, and others
        new = clustered(seed=seed)
        new[4] = np.inf
        np.save("new.npy", new)
        result = run("extend", "new.npy", "--ids", "ids")
        assert result.exit_code == 0, result.output
        assert f"299 items added to {len(old)}" in result.output
        assert "1 have no ID, because they are not finite" in result.output
        codes = np.load("ids/ids.npy")
        assert np.array_equal(codes[: len(old)], old)
        assert len(np.unique(codes, axis=0)) == len(codes) == len(old) + 299
        old = codes
    if form == "parquet":
        table = pyarrow.parquet.read_table("ids/ids.parquet")
        assert table["item"].to_pylist() == SemanticIDs.load("ids").items
        assert np.array_equal(np.stack(table.columns[1:], -1), old)


def test_names(fit: Run, run: Run) -> None:
    Path("names.txt").write_text("".join(f"n{row}\n" for row in range(COUNT)))
    assert fit("--items", "names.txt").exit_code == 0
    np.save("new.npy", clustered(2, seed=1))
    Path("new.txt").write_text("tea\nn7\n")
    before = {path.name: path.read_bytes() for path in Path("ids").iterdir()}
    for words, sentence in ((["--items", "new.txt"], "'n7', which has an ID already"), ([], "have names")):
        result = run("extend", "new.npy", "--ids", "ids", *words)
        assert result.exit_code == 2
        assert sentence in result.output
        assert {path.name: path.read_bytes() for path in Path("ids").iterdir()} == before
    Path("new.txt").write_text("tea\ncoffee\n")
    assert run("extend", "new.npy", "--ids", "ids", "--items", "new.txt").exit_code == 0
    assert SemanticIDs.load("ids").items[-2:] == ["tea", "coffee"]
