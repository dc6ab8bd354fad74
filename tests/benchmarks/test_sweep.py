"""The sweep: which points it has, that it continues, and that its tables are those of its points."""

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from benchmarks import utilization
from benchmarks.cli import sweep as sweep_command
from benchmarks.cli.app import app
from benchmarks.cost import Cost
from benchmarks.sweep import cuts, plots, report
from benchmarks.sweep.grid import DEFAULT_LIMITS, FULL, SMALL, Axes, Grid
from benchmarks.sweep.run import Results, folder_name
from benchmarks.training import Recipe
from benchmarks.variants import CORE

QUANTIZERS = "vq,fsq,none"
TINY = {
    "quantizers": QUANTIZERS,
    "codebook-sizes": "32,16",
    "dims": "4,8",
    "learning-rates": "0.003",
    "seeds": "0,1",
    "steps": "2",
}
POINTS = 3 * 2 * (2 + 2 - 1)  # quantizers, seeds, sizes and dims through one centre


@pytest.fixture
def command(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs `sweep` with tiny settings, or others by name. Time and memory are not measured."""
    monkeypatch.setattr(utilization, "measure_cost", lambda *rest: Cost(2.0, 1.0, 0.5, 1000))

    def run(*flags: str, **other: str) -> Any:
        options = {**TINY, "images": str(pictures), "out": str(tmp_path / "out")}
        options |= {key.replace("_", "-"): value for key, value in other.items()}
        words = [f"--{key}={value}" for key, value in options.items()]
        return CliRunner().invoke(app, ["sweep", *words, *flags])

    return run


@pytest.fixture
def unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pictures are drawn: one test looks at them, and they take a second."""
    monkeypatch.setattr(plots, "write_all", lambda *given: [])


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Recipe]]:
    """What is trained, as it happens."""
    points = []
    real = utilization.measure

    def measure(name: str, recipe: Recipe, *rest: Any) -> Any:
        points.append((name, recipe))
        return real(name, recipe, *rest)

    monkeypatch.setattr(utilization, "measure", measure)
    return points


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "sweep.json").read_text())


def values(numbers: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(numbers, min_size=1, max_size=4, unique=True).map(sorted).map(tuple)


sizes = st.integers(2, 2**20)
rates = st.floats(1e-6, 1)
axes = st.builds(Axes, values(sizes), values(st.integers(1, 512)), values(rates), values(st.integers(0, 9)))


@given(axes)
def test_one_axis_at_a_time_or_every_combination_each_once(axes: Axes) -> None:
    lists = [axes.codebook_sizes, axes.dims, axes.learning_rates]
    star, cross = axes.star(), axes.cross()
    assert len(set(star)) == len(star) == sum(map(len, lists)) - 2
    assert len(set(cross)) == len(cross) == math.prod(map(len, lists))
    assert set(cross) == set(itertools.product(*lists)) >= set(star)
    for place, those in enumerate(lists):
        line = [s for s in star if all(s[other] == axes.centre[other] for other in range(3) if other != place)]
        assert sorted(s[place] for s in line) == list(those)
        assert axes.centre in line
    off_centre = [sum(a != b for a, b in zip(setting, axes.centre, strict=True)) for setting in star]
    assert max(off_centre) <= 1


@given(axes, st.booleans(), sizes)
def test_points_are_settings_times_seeds_times_quantizers_up_to_the_limits(
    axes: Axes, crossed: bool, limit: int
) -> None:
    grid = Grid(["vq", "vq:distance=cosine", "fsq"], axes, Recipe(steps=7), crossed, {"vq": limit})
    points, left_out = grid.points(), grid.left_out()
    assert len({*points, *left_out}) == len(points) + len(left_out)
    assert len(points) + len(left_out) == len(grid.settings()) * len(axes.seeds) * 3
    assert all(point.name != "fsq" and point.recipe.codebook_size > limit for point in left_out)
    assert all(point.name == "fsq" or point.recipe.codebook_size <= limit for point in points)
    assert {point.recipe.steps for point in points} <= {7}
    folders = {(folder_name(point.recipe), point.name) for point in points}
    assert len(folders) == len(points)


def test_the_recipe_stands_at_the_centre_of_the_defaults() -> None:
    for usual in (SMALL, FULL):
        assert usual.centre == (Recipe.codebook_size, Recipe.dim, Recipe.learning_rate)


@pytest.mark.parametrize(
    ("options", "usual", "crossed", "limits"),
    [
        ([], SMALL, False, DEFAULT_LIMITS),
        (["--full"], FULL, True, {}),
        (["--codebook-sizes", "8"], replace(SMALL, codebook_sizes=(8,)), False, {}),
    ],
)
def test_what_the_options_ask_for(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    usual: Axes,
    crossed: bool,
    limits: dict[str, int],
) -> None:
    grids: list[Grid] = []
    monkeypatch.setattr(sweep_command, "check", lambda grid: None)
    monkeypatch.setattr(sweep_command, "run", lambda grid, *rest, **more: grids.append(grid) or Results())
    assert CliRunner().invoke(app, ["sweep", "--out", str(tmp_path), *options]).exit_code == 0
    (grid,) = grids
    assert grid.names == CORE
    assert grid.crossed is crossed
    assert grid.limits == limits
    assert grid.axes == usual


def test_report_is_that_of_the_parts(command: Any, tmp_path: Path) -> None:
    result = command()
    assert result.exit_code == 0, result.output
    out = tmp_path / "out"
    record = read(out)
    assert {"machine", "versions", "revision", "date", "data", "settings"} <= record.keys()
    assert record["settings"]["centre"] == {"codebook_size": 32, "dim": 8, "learning_rate": 0.003}
    assert record["data"]["held_out_vectors"] == 6 * 64
    assert len(record["points"]) == POINTS
    assert not record["missing"]
    for point in record["points"]:
        recipe = Recipe(point["asked_codebook_size"], point["dim"], seed=point["seed"])
        stored = out / "parts" / folder_name(recipe) / f"{point['quantizer']}.json"
        assert json.loads(stored.read_text())["numbers"].items() <= point.items()
        assert (point["quantizer"] == "none") == (point["utilization"] is None)
    at_centre = [p["psnr_db"] for p in record["points"] if p["quantizer"] == "vq" and p["dim"] == 8]
    assert len(at_centre) == 4
    lines = (out / "sweep.md").read_text().splitlines()
    table = lines[lines.index("**PSNR in dB against K, at D 8, learning rate 0.003**") :]
    assert table[2] == "| quantizer | 16 | 32 |"
    first, second = at_centre[:2]  # K 16, the two seeds
    low, high = sorted((first, second))
    assert table[4].startswith(f"| vq | {(first + second) / 2:.2f} ({low:.2f} to {high:.2f}) | ")
    assert not any("against learning rate" in line for line in lines)
    assert any(line.startswith("| none | - | - |") for line in lines)
    for name in ("utilization", "psnr_bits", "dims_rates"):
        with Image.open(out / f"{name}.png") as picture:
            picture.load()
            assert min(picture.size) > 400
    assert not list(out.rglob("*.tmp"))


@pytest.mark.usefixtures("unseen")
def test_an_interrupted_sweep_reports_and_continues(
    command: Any, trained: list[tuple[str, Recipe]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    few = {"quantizers": "vq,none", "dims": "8"}
    counting = utilization.measure

    def interrupted(*given: Any) -> Any:
        if len(trained) == 3:
            raise KeyboardInterrupt
        return counting(*given)

    monkeypatch.setattr(utilization, "measure", interrupted)
    result = command(**few)
    assert result.exit_code == 130
    assert "Not finished: 5 points" in " ".join(result.output.split())
    before = read(tmp_path / "out")
    assert before["interrupted"]
    assert (len(before["points"]), len(before["missing"])) == (3, 5)

    monkeypatch.setattr(utilization, "measure", counting)
    assert command(**few).exit_code == 0
    after = read(tmp_path / "out")
    assert len(trained) == len(set(trained)) == len(after["points"]) == 8
    assert after["points"][:3] == before["points"]
    assert not after["missing"]
    trained.clear()
    assert command(**few, learning_rates="0.003,0.01").exit_code == 0
    assert [(name, recipe.learning_rate) for name, recipe in trained] == [("vq", 0.01), ("none", 0.01)] * 2
    trained.clear()
    assert command("--fresh", quantizers="vq", dims="8", seeds="0").exit_code == 0
    assert len(trained) == 2


def test_an_interruption_before_anything_is_finished(
    command: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(utilization, "measure", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    result = command()
    assert result.exit_code == 130
    assert "No point was finished" in result.output
    assert not (tmp_path / "out" / "sweep.json").exists()


@pytest.mark.usefixtures("unseen")
def test_a_point_that_does_not_fit_in_memory_is_left_aside(
    command: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = utilization.measure

    def measure(name: str, recipe: Recipe, *rest: Any) -> Any:
        if recipe.codebook_size == 16:
            raise torch.OutOfMemoryError("16 are too many\nand more lines")
        return real(name, recipe, *rest)

    monkeypatch.setattr(utilization, "measure", measure)
    result = command(quantizers="vq", dims="8", seeds="0")
    assert result.exit_code == 1
    record = read(tmp_path / "out")
    assert [point["asked_codebook_size"] for point in record["points"]] == [32]
    assert record["failed"] == ["vq at K 16, D 8, learning rate 0.003, seed 0: 16 are too many"]
    assert not record["missing"]
    assert "Did not fit in memory: vq at K 16" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("quantizers", "simqv", "simvq"),
        ("quantizers", "ema_vq:decay=2", "at K 16 and D 8: decay is 2"),
        ("quantizers", " ,", "got no name"),
        ("codebook_sizes", "16,1", "--codebook-sizes: got '1'; expected a whole number from 2"),
        ("codebook_sizes", "16.0", "--codebook-sizes: got '16.0'; expected"),
        ("dims", "0", "--dims: got '0'; expected a whole number from 1"),
        ("dims", ",", "--dims: got no value"),
        ("learning_rates", "0", "--learning-rates: got '0'; expected a number above 0"),
        ("learning_rates", "1e-3,fast", "--learning-rates: got 'fast'; expected"),
        ("learning_rates", "inf", "--learning-rates: got 'inf'; expected"),
        ("seeds", "-1", "--seeds: got '-1'; expected a whole number from 0"),
        ("steps", "0", "--steps"),
        ("device", "toaster", "'toaster' cannot be used"),
        ("images", "/nowhere/at/all", "is not a folder"),
        ("out", __file__, "cannot write"),
    ],
)
def test_wrong_options_are_sentences(
    command: Any, trained: list[tuple[str, Recipe]], option: str, value: str, sentence: str
) -> None:
    result = command(**{option: value})
    assert result.exit_code == 2
    assert sentence in result.output
    assert "Traceback" not in result.output
    assert not trained


def made_up(name: str, size: int, dim: int, rate: float, seed: int, psnr: float | None) -> dict[str, Any]:
    asked = {"asked_codebook_size": size, "dim": dim, "learning_rate": rate}
    return {"quantizer": name, **asked, "seed": seed, "psnr_db": psnr, "utilization": None}


def test_cuts_means_and_the_best_of_known_points() -> None:
    points = [
        made_up("vq", 16, 8, 0.1, 0, 20.0),
        made_up("vq", 16, 8, 0.1, 1, 22.0),
        made_up("vq", 8, 8, 0.1, 0, math.nan),
        made_up("vq", 16, 4, 0.1, 0, 30.0),
        made_up("vq", 16, 4, 0.1, 1, None),
        made_up("fsq", 16, 8, 0.1, 0, 99.0),
    ]
    centre = {"codebook_size": 16, "dim": 8, "learning_rate": 0.1}
    settings = {"centre": centre, "codebook_sizes": [8, 16], "quantizers": ["vq", "fsq"]}
    record = {"settings": settings, "points": points}
    assert cuts.cut(record, "vq", "codebook_size") == {8: points[2:3], 16: points[:2]}
    assert cuts.cut(record, "vq", "dim") == {4: points[3:5], 8: points[:2]}
    assert cuts.mean(points[:2], "psnr_db", 10) == (210, 200, 220)
    assert cuts.mean(points[2:3], "psnr_db") is None
    assert cuts.best(record, "vq", 16, "psnr_db") == ((30, 30, 30), points[3])
    assert cuts.best(record, "vq", 8, "psnr_db") is None
    rows = report.best_sheet(record).rows
    assert rows == [["vq", "-", "30.00\nD 4, 0.1"], ["fsq", "-", "99.00\nD 8, 0.1"]]
