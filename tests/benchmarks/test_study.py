"""The study: its questions can be asked, its verdicts follow from the numbers, its report from the record."""

import json
import math
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from benchmarks import variants
from benchmarks.autoencoder import build
from benchmarks.cli import study as study_command
from benchmarks.cli.app import app
from benchmarks.data import from_folder
from benchmarks.sheets import markdown_rows
from benchmarks.study import compare, curves, report
from benchmarks.study import run as running
from benchmarks.study.effects import Column, Comparison, Effect, Setting, Table, against_d, against_k
from benchmarks.study.measure import latent_errors, measure
from benchmarks.study.measures import PSNR, STEPS_TO_VQ, USED, USED_HELD_OUT, USED_SEEN
from benchmarks.study.questions import EFFECTS
from benchmarks.training import Recipe

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "docs" / "results" / "study.md"
RECORDS = [ROOT / "benchmarks" / "results" / name for name in ("study-cpu", "study-hi-cpu")]

SMALL = (
    Effect(
        "a",
        "Two methods",
        "A claim.",
        [against_k(USED, ("vq", "fsq"), (16, 32)), against_d(PSNR, ("vq", "none"), (4, 8))],
        [Comparison("vq has the higher PSNR", PSNR, Setting("vq", 16), Setting("fsq", 16))],
    ),
    Effect(
        "b",
        "How fast",
        "Another.",
        [Table("Steps", ("vq", "fsq"), [Column("K 16", STEPS_TO_VQ, 16)])],
        [Comparison("training counts more", USED_SEEN, Setting("vq", 32), Setting("vq", 32), USED_HELD_OUT)],
    ),
    Effect("c", "Dots", "A third.", [Table("Both", ("vq", "fsq"), [Column("PSNR", PSNR, 16)])], []),
)


class Here:
    """A pool whose work is done at once, in this process."""

    def submit(self, work: Any, task: running.Task) -> "Future[Any]":
        future: Future[Any] = Future()
        try:
            future.set_result(work(task))
        except BaseException as error:  # Ctrl-C, too
            future.set_exception(error)
        return future


@contextmanager
def at_once(workers: int) -> Iterator[Here]:
    yield Here()


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Recipe]]:
    """What is trained, as it happens, in this process."""
    points: list[tuple[str, Recipe]] = []
    real = running.measure

    def counted(name: str, recipe: Recipe, *rest: Any) -> Any:
        points.append((name, recipe))
        return real(name, recipe, *rest)

    monkeypatch.setattr(running, "measure", counted)
    monkeypatch.setattr(running, "processes", at_once)
    monkeypatch.setattr(running, "as_completed", list)  # in the order in which they were asked for
    return points


@pytest.fixture
def command(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: Any) -> Any:
    """Runs `study` with three small questions, two steps and two seeds, or other options by name."""
    threads = torch.get_num_threads()
    monkeypatch.setattr(study_command, "EFFECTS", SMALL)

    def run(*flags: str, **other: str) -> Any:
        options = {"images": str(pictures), "out": str(tmp_path / "out"), "steps": "2", "seeds": "0,1", **other}
        try:
            return CliRunner().invoke(app, ["study", *(f"--{k}={v}" for k, v in options.items()), *flags])
        finally:
            torch.set_num_threads(threads)

    return run


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "study.json").read_text())


def test_every_question_can_be_asked() -> None:
    assert [effect.key for effect in EFFECTS] == list("abcdefghi")
    for effect in EFFECTS:
        assert effect.tables
        assert effect.comparisons
        settings = effect.settings()
        assert len(set(settings)) == len(settings)
        for each in effect.comparisons:
            assert {each.greater, each.lesser} <= set(settings)
            same = (each.greater, each.measure) == (each.lesser, each.lesser_measure or each.measure)
            assert not same, each.sentence
    for setting in {setting for effect in EFFECTS for setting in effect.settings()}:
        with torch.device("meta"):
            quantizer = variants.create(
                setting.quantizer, dim=setting.dim, codebook_size=setting.codebook_size, channel_dim=1
            )
        variants.aids(setting.quantizer)
        assert quantizer.codebook_size == pytest.approx(setting.codebook_size, rel=0.25)


def test_a_seed_is_trained_after_the_other_and_each_point_once() -> None:
    base = Recipe(steps=7, learning_rate=0.5)
    points = running.points(EFFECTS, base, (4, 2))
    assert len(set(points)) == len(points)
    half = len(points) // 2
    assert {point.recipe.seed for point in points[:half]} == {4}
    assert [replace(point.recipe, seed=4) for point in points[half:]] == [p.recipe for p in points[:half]]
    settings = {setting for effect in EFFECTS for setting in effect.settings()}
    assert {Setting(p.name, p.recipe.codebook_size, p.recipe.dim) for p in points} == settings
    assert {(p.recipe.steps, p.recipe.learning_rate) for p in points} == {(7, 0.5)}


numbers = st.floats(-1e6, 1e6)


def recorded(setting: Setting, seed: int, key: str, value: float | None) -> dict[str, Any]:
    asked = {"quantizer": setting.quantizer, "asked_codebook_size": setting.codebook_size, "dim": setting.dim}
    return {**asked, "seed": seed, key: value}


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=5))
def test_a_comparison_holds_where_it_holds_in_every_seed(pairs: list[tuple[float, float]]) -> None:
    first, second, other = Setting("vq", 16), Setting("fsq", 16), Setting("vq", 32)
    points = [recorded(other, 0, PSNR.key, math.nan)]
    for seed, (a, b) in enumerate(pairs):
        points += [recorded(second, seed, PSNR.key, b), recorded(first, seed, PSNR.key, a)]
    record = {"points": points[::-1]}  # the order in which trainings finish says nothing
    found = compare.differences(record, Comparison("", PSNR, first, second))
    assert found == [a - b for a, b in pairs]
    words = compare.verdict(found, len(pairs))
    assert words.startswith("yes") == all(a > b for a, b in pairs)
    assert words.startswith("no, the opposite") == all(a < b for a, b in pairs)
    assert words.startswith("no, equal") == all(a == b for a, b in pairs)
    assert compare.verdict(found, len(pairs) + 1).startswith("open: measured in")
    assert compare.differences(record, Comparison("", PSNR, first, other)) == []


def test_a_comparison_of_two_measures_scales_each() -> None:
    setting = Setting("vq", 16)
    point = recorded(setting, 3, USED_SEEN.key, 0.75) | {USED_HELD_OUT.key: 0.5}
    comparison = Comparison("", USED_SEEN, setting, setting, USED_HELD_OUT)
    assert compare.differences({"points": [point]}, comparison) == [25]


@given(st.lists(st.tuples(*[st.none() | st.integers(1, 9)] * 2), min_size=1, max_size=4))
def test_never_comes_after_every_step(pairs: list[tuple[int | None, int | None]]) -> None:
    first, second = Setting("vq", 16), Setting("simvq", 16)
    points = [
        recorded(setting, seed, STEPS_TO_VQ.key, step)
        for seed, pair in enumerate(pairs)
        for setting, step in zip((first, second), pair, strict=True)
    ]
    comparison = Comparison("", STEPS_TO_VQ, first, second)
    found = compare.differences({"points": points}, comparison)
    later = [(a or math.inf) > (b or math.inf) for a, b in pairs]
    assert [each > 0 for each in found] == later
    without = [{key: value for key, value in point.items() if key != STEPS_TO_VQ.key} for point in points]
    assert compare.differences({"points": without}, comparison) == []
    cell = report.table_sheet({"points": points}, Table("", ("vq",), [Column("", STEPS_TO_VQ, 16)])).rows[0][1]
    steps = [a for a, _ in pairs]
    assert ("never" in cell) == (None in steps)
    assert (cell == "never") == (set(steps) == {None})


errors = st.lists(st.floats(1e-6, 1), min_size=1, max_size=60).map(lambda values: np.array(values, np.float32))


@given(errors, errors)
def test_the_step_at_which_one_reaches_the_other(mse: np.ndarray, other: np.ndarray) -> None:
    window = curves.window_of(len(mse))
    end = curves.window_of(len(other))
    goal = float(curves.smooth(other)[-1])
    # n products with a rounded 1/n and n − 1 sums, on both sides, in float64
    assert goal == pytest.approx(other[-end:].astype(float).mean(), rel=4 * end * 2**-53)
    means = [mse[step - window : step].astype(float).mean() for step in range(window, len(mse) + 1)]
    assert curves.smooth(mse) == pytest.approx(means, rel=4 * window * 2**-53)
    found = curves.steps_to(mse, other)
    reached = [step for step, value in enumerate(curves.smooth(mse), window) if value <= goal]
    assert found == (reached[0] if reached else None)
    assert curves.steps_to(mse, mse) <= len(mse)
    assert curves.steps_to(mse / 2, other) is None or found is None or curves.steps_to(mse / 2, other) <= found
    drawn = curves.thinned(mse)
    assert len(drawn["steps"]) == len(drawn["mse"]) > 0
    assert drawn["mse"] == [curves.smooth(mse)[step - window] for step in drawn["steps"]]


def test_counts_of_one_training(pictures: Path) -> None:
    photographs = from_folder(pictures)
    recipe = Recipe(codebook_size=32, dim=4, steps=8)
    result = measure("simvq", recipe, photographs, lambda *step: None)
    n = result.numbers
    assert 1 / 32 <= n["utilization_window"] == n["utilization_seen"] <= 1  # fewer steps than the window has
    assert 0 < n["utilization_crops"] <= 1
    assert n["psnr_db_window"] == pytest.approx(-10 * math.log10(result.train_mse.astype(float).mean()))
    assert n["psnr_db_crops"] > 0
    assert n["latent_error"] > 0 < n["quantization_error"]
    plain = measure("none", recipe, photographs, lambda *step: None).numbers
    assert plain["latent_error"] == plain["quantization_error"] == 0
    assert plain["utilization_seen"] is plain["utilization_window"] is plain["utilization_crops"] is None


def test_latent_error_is_one_where_all_vectors_become_their_mean() -> None:
    model = build("vq", dim=4, codebook_size=2, seed=0)
    tiles = torch.rand(6, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        mean = model.eval().encoder(tiles).mean((0, 2, 3))
        variance = model.encoder(tiles).double().var((0, 2, 3), correction=0).mean().item()
    model.quantizer.set_codebook(mean.expand(2, 4))
    found = latent_errors(model, tiles, batch_size=4)
    # the mean is of 384 float32 vectors, and enters both the error and the variance
    assert found["latent_error"] == pytest.approx(1, rel=384 * 2**-23)
    assert found["quantization_error"] == pytest.approx(variance, rel=384 * 2**-23)


def test_report_is_that_of_the_trainings(command: Any, trained: Any, tmp_path: Path) -> None:
    result = command()
    assert result.exit_code == 0, result.output
    out = tmp_path / "out"
    record = read(out)
    assert {"machine", "versions", "revision", "date", "data", "settings"} <= record.keys()
    assert record["settings"]["seeds"] == [0, 1]
    assert len(trained) == len(set(trained)) == len(record["points"])
    assert not record["missing"]
    vq, fsq = ([p["psnr_db"] for _, p in compare.at(record, Setting(name, 16)).items()] for name in ("vq", "fsq"))
    (first, second) = record["comparisons"]
    assert first["differences"] == [a - b for a, b in zip(vq, fsq, strict=True)]
    lines = (out / "study.md").read_text().splitlines()
    table = lines[lines.index("**PSNR in dB against D, at K 1024**") :]
    assert table[2] == "| quantizer | 4 | 8 |"
    found = [p["psnr_db"] for p in compare.at(record, Setting("none", dim=4)).values()]
    low, high = sorted(found)
    assert table[5].startswith(f"| none | {sum(found) / 2:.2f} ({low:.2f} to {high:.2f}) | ")
    assert second["differences"] == [
        pytest.approx(100 * (p["utilization_seen"] - p["utilization"]))
        for p in compare.at(record, Setting("vq", 32)).values()
    ]
    assert all(p["steps_to_vq"] <= 2 for p in compare.at(record, Setting("vq", 16)).values())
    for name in ("a-lines", "b-curves", "c-dots"):
        assert f"]({name}.png)" in "\n".join(lines)
        with Image.open(out / f"{name}.png") as picture:
            picture.load()
            assert min(picture.size) > 150
    assert not list(out.rglob("*.tmp"))
    assert {curve["codebook_size"] for curve in record["curves"]} == {16}


@pytest.mark.usefixtures("unseen")
def test_an_interrupted_study_reports_and_continues(
    command: Any, trained: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    counting = running.measure

    def interrupted(*given: Any) -> Any:
        if len(trained) == 3:
            raise KeyboardInterrupt
        return counting(*given)

    monkeypatch.setattr(running, "measure", interrupted)
    result = command(effects="a,c", seeds="0")
    assert result.exit_code == 130
    before = read(tmp_path / "out")
    assert before["interrupted"]
    assert len(before["missing"]) == 5
    monkeypatch.setattr(running, "measure", counting)
    result = command(effects="c,a", seeds="0")
    assert result.exit_code == 0, result.output
    after = read(tmp_path / "out")
    assert not after["missing"]
    assert after["settings"]["effects"] == ["a", "c"]
    assert len(trained) == len(set(trained)) == 8
    trained.clear()
    assert command("--fresh", effects="c", seeds="0").exit_code == 0
    assert len(trained) == 2


@pytest.mark.usefixtures("unseen")
@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            torch.OutOfMemoryError("16 are too many\nand more"),
            "at K 16, D 32, learning rate 0.003, seed 0: 16 are",
        ),
        (BrokenProcessPool(), "A process of the study died"),
    ],
)
def test_what_did_not_fit_is_said(
    command: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception, sentence: str
) -> None:
    real = running.measure

    def measure(name: str, recipe: Recipe, *rest: Any) -> Any:
        if (name, recipe.codebook_size) == ("fsq", 16):
            raise error
        return real(name, recipe, *rest)

    monkeypatch.setattr(running, "measure", measure)
    result = command(effects="c", seeds="0")
    assert result.exit_code == 1
    assert sentence in " ".join(result.output.split())
    record = read(tmp_path / "out")
    assert [point["quantizer"] for point in record["points"]] == ["vq"]
    assert len(record["missing"]) == 1


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("effects", "a,x", "--effects: got 'x'; expected one of a, b, c"),
        ("effects", " ,", "--effects: got no letter"),
        ("seeds", "-1", "--seeds: got '-1'; expected a whole number from 0"),
        ("steps", "0", "--steps"),
        ("workers", "0", "--workers"),
        ("device", "toaster", "'toaster' cannot be used"),
        ("images", "/nowhere/at/all", "is not a folder"),
        ("out", __file__, "cannot write"),
    ],
)
def test_wrong_options_are_sentences(command: Any, trained: Any, option: str, value: str, sentence: str) -> None:
    result = command(**{option: value})
    assert result.exit_code == 2
    assert sentence in result.output
    assert "Traceback" not in result.output
    assert not trained


@pytest.mark.slow
def test_processes_train_and_store(pictures: Path, tmp_path: Path) -> None:
    points = running.points([SMALL[2]], Recipe(steps=1), (0,))
    seen: list[tuple[str, bool]] = []

    def run(**options: Any) -> running.Results:
        on_point = lambda point, result, new: seen.append((point.name, new))  # noqa: E731
        return running.run(points, pictures, tmp_path, workers=1, on_point=on_point, **options)

    results = run()
    assert set(results.finished) == set(points)
    assert not multiprocessing.active_children()
    assert sorted(seen) == [("fsq", True), ("vq", True)]
    seen.clear()
    again = run()  # nothing is left to train, so no process begins
    assert seen == [("vq", False), ("fsq", False)]
    assert {point: result.numbers for point, result in again.finished.items()} == {
        point: result.numbers for point, result in results.finished.items()
    }


def test_the_written_study_has_the_tables_of_the_committed_records() -> None:
    text, asked = STUDY.read_text(), []
    for folder in RECORDS:
        record = read(folder)
        assert not record["missing"]
        assert not record["revision"]["dirty"]
        effects = [effect for effect in EFFECTS if effect.key in record["settings"]["effects"]]
        asked += [effect.key for effect in effects]
        for effect in effects:
            assert f"## ({effect.key}) {effect.title}" in text
            for sheet in report.sheets(record, effect):
                assert "\n".join(markdown_rows(sheet)) in text, sheet.title
        assert report.on(record) in text
        for picture in folder.glob("*.png"):
            assert f"](../../benchmarks/results/{folder.name}/{picture.name})" in text
    assert asked == [effect.key for effect in EFFECTS]


@pytest.fixture
def unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pictures are drawn: one test looks at them, and they take seconds."""
    monkeypatch.setattr(study_command.plots, "write_all", lambda *given: {})
