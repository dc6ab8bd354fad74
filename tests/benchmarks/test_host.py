"""`python -m benchmarks host`: the host's time for a GPU's calls, without a GPU."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from benchmarks.cli.app import app
from benchmarks.host.driver import Launch, host_only
from benchmarks.host.report import sheet
from benchmarks.host.run import LOOKUP, SEARCH, run
from benchmarks.machine import ROOT
from benchmarks.python_processes import printed
from benchmarks.sheets import NOTHING, markdown_rows
from quantizers.kernels.common.dispatch import use_implementation
from quantizers.kernels.common.triton import replay
from quantizers.kernels.nearest.operation import nearest_code, nearest_lookup
from quantizers.kernels.soft.operation import soft_codes
from quantizers.kernels.sums.operation import code_sums
from tests.triton.interpreter import compiles_kernels

pytestmark = compiles_kernels

CALLS = {
    "nearest_code": lambda: nearest_code(torch.randn(2, 64, 8), torch.randn(2, 40, 8)),
    "nearest_lookup": lambda: nearest_lookup(torch.randn(1, 64, 8), torch.randn(1, 40, 8), 0.25, 1.0),
    "soft_codes": lambda: soft_codes(*map(torch.randn, [(64, 8), (40, 8), (40,), (40, 8)]), torch.ones(()), None),
    "code_sums": lambda: code_sums(torch.randn(1, 64, 8), torch.zeros(1, 64, dtype=torch.int64), 40),
}


def comparable(launches: list[Launch]) -> list[tuple[Any, ...]]:
    """Launches with a number, dtype and shape in the place of each tensor, in the order of their first use."""
    numbers: dict[int, int] = {}

    def number(argument: Any) -> Any:
        if isinstance(argument, tuple):
            return tuple(map(number, argument))
        if not isinstance(argument, Tensor):
            return argument
        place = numbers.setdefault(argument.data_ptr(), len(numbers))
        return place, argument.dtype, argument.shape, argument.stride(), argument.data_ptr() % 16

    return [(kernel, grid, *map(number, arguments)) for kernel, grid, arguments in launches]


@pytest.mark.parametrize("name", CALLS)
def test_a_repeated_call_makes_the_launches_of_the_first(name: str) -> None:
    """The same kernels, grids and numbers, and tensors in the same places."""
    launches: list[Launch] = []
    with host_only(launches.append):
        seen = []
        for _ in range(replay.FIRST + 2):
            launches.clear()
            CALLS[name]()
            seen.append(comparable(launches))
        launches.clear()
        with replay.without_replay():
            CALLS[name]()
        assert launches
        assert all(each == comparable(launches) for each in seen)


def test_replay_does_not_import_the_compiler_of_pytorch() -> None:
    """That would take the first training steps a second or more."""
    program = """
import sys, json, torch
from benchmarks.host.driver import host_only
from quantizers.kernels.common.triton import replay
from quantizers.kernels.rows.operation import finite_rows
with host_only(id):
    for _ in range(replay.FIRST + 2):
        finite_rows(torch.ones(3, 2), None)
print(json.dumps("torch._dynamo" in sys.modules))
"""
    assert printed(program, os.environ) is False


def test_times_and_launches_of_each_call(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["host", "--rounds", "2", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    result = json.loads((tmp_path / "host.json").read_text())
    rows = {row["name"]: row for row in result["calls"]}
    assert rows["search"]["launches"] == 7
    assert rows["VQ"]["launches"] > 7
    for row in result["calls"]:
        assert row["us"]["lower"] > 0
        assert ("us_without_replay" in row) == (row["name"] == row["against"])
    table = (tmp_path / "host.md").read_text()
    assert all(f"| {row['name']} |" in table for row in result["calls"] if row["name"] == row["against"])


def test_the_ratio_says_how_many_times_as_long_the_other_library_takes() -> None:
    def row(name: str, against: str, median: float) -> dict[str, Any]:
        return {
            "name": name,
            "against": against,
            "launches": 3,
            "us": {"median": median},
            "us_without_replay": {"median": 2 * median},
        }

    calls = [row("VQ", "VQ", 200.0), row("other VQ", "VQ", 500.0), row("search", "search", 50.0)]
    rows = sheet({"calls": calls, "shape": "64x40x8", "rounds": 2}).rows
    assert rows == [["VQ", "3", "200", "400", "500", "2.50"], ["search", "3", "50", "100", "-", "-"]]


def test_the_block_leaves_nothing_behind() -> None:
    before = torch.get_num_threads()
    run(rounds=2)
    assert torch.get_num_threads() == before
    with use_implementation("triton"), pytest.raises(RuntimeError, match="cannot run nearest_code"):
        CALLS["nearest_code"]()


def test_the_page_on_speed_shows_what_is_committed() -> None:
    """The table, where and when it was measured, and every number of the text beside it."""
    record = json.loads((ROOT / "benchmarks" / "results" / "host-cpu" / "host.json").read_text())
    text = " ".join((ROOT / "docs" / "results" / "speed.md").read_text().split())
    assert " ".join(" ".join(markdown_rows(sheet(record))).split()) in text
    versions = record["versions"]
    where = f"{record['machine']['processor']}, torch {versions['torch']}, triton {versions['triton']}"
    assert f"{where}, {record['date'][:10]}, revision {record['revision']['commit'][:7]}" in text
    assert f"Medians of {record['rounds']} rounds of {record['runs']} runs" in text
    assert not record["revision"]["dirty"]
    calls = {row["name"]: row for row in record["calls"]}
    ours = [row for row in calls.values() if "us_without_replay" in row]
    gains = [row["us_without_replay"]["median"] / row["us"]["median"] for row in ours]
    steps = [gain for gain, row in zip(gains, ours, strict=True) if row["name"] not in (SEARCH, LOOKUP)]
    assert f"A search takes {gains[0]:.1f} times as long without it" in text
    assert f"and a step {min(steps):.1f} to {max(steps):.1f} times." in text
    ratios = [float(row[-1]) for row in sheet(record).rows if row[-1] != NOTHING]
    assert f"{min(ratios):.2f} to {max(ratios):.2f} on vectors this few" in text
