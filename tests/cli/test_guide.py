"""The commands in docs/fitting-codebooks.md run, one after the other, on small files."""

import re
import shlex
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from tests.cli.conftest import Run, clustered

GUIDE = Path(__file__).parents[2] / "docs" / "fitting-codebooks.md"
COMMANDS = re.findall(r"^    python -m quantizers (.*)$", GUIDE.read_text(), re.M)


def test_the_commands_of_the_guide(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantizers.cli.results.draw", lambda path, _: path.write_bytes(b"drawn"))
    for seed, name in enumerate(("items", "new", "frames", "new_frames", "vectors")):
        vectors = clustered(600, 16, seed)
        np.save(f"{name}.npy", vectors)
        names = [f"{name} {row}" for row in range(600)]
        pyarrow.parquet.write_table(pyarrow.table({"id": names, "vector": list(vectors)}), f"{name}.parquet")
    assert len(COMMANDS) >= 8
    for command in COMMANDS:
        result = run(*shlex.split(command), *(["--epochs", 1] if command.startswith("fit") else []))
        assert result.exit_code == 0, f"{command}: {result.output}"
