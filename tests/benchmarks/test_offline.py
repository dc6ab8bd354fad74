"""The benchmark of offline fits: rounds and budget, verdicts, and the command on tiny cells."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from benchmarks.cli.app import app
from benchmarks.offline import bars, run
from benchmarks.offline.cells import KMEANS, Cell
from benchmarks.offline.contenders import Contender
from benchmarks.offline.run import Benchmark, Results, Settings
from benchmarks.offline.stored import Run
from benchmarks.offline.summary import SAME, best_rival, lines, reach
from benchmarks.offline.tasks import Task

CELL = Cell(KMEANS, "patches", 300, 64, 4)
OURS, FAISS, SKLEARN = "ours", "faiss", "scikit-learn"
positive = st.floats(0.01, 100)


# Rounds, budget and stored results


class Script:
    """Stands in for processes.measured: counts runs, and returns what it is given."""

    def __init__(self, numbers: dict[str, Any]) -> None:
        self.numbers = numbers
        self.calls: list[tuple[str, int]] = []

    def __call__(self, contender: Contender, task: Task, limit_s: float) -> dict[str, Any]:
        assert limit_s > 0
        assert (task.seeds is None) == (not contender.from_seeds)
        self.calls.append((contender.name, task.seed))
        if "raise" in self.numbers:
            raise KeyboardInterrupt
        return dict(self.numbers)


NUMBERS: dict[str, Any] = {
    "seconds": 1.0, "inertia": 2.0, "peak_bytes": 3, "passes": 4, "inertias": [], "instructions": "AVX2"
}  # fmt: skip


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Script:
    script = Script(NUMBERS)
    monkeypatch.setattr(run, "measured", script)
    return script


def settings(out: Path, **options: Any) -> Settings:
    names = ["faiss", "faiss, same seeds", "scikit-learn"]
    made = Settings((CELL,), out, budget_s=1000, rounds=2, contenders=run.named(names), threads=1)
    return replace(made, **options)


def performed(given: Settings) -> Results:
    results = Results()
    Benchmark(given, results, lambda name: None).run()
    return results


def test_what_was_measured_is_not_measured_again(tmp_path: Path, scripted: Script) -> None:
    results = performed(settings(tmp_path, rounds=1))
    assert len(scripted.calls) == 3
    again = performed(settings(tmp_path, budget_s=0))
    assert len(scripted.calls) == 3
    assert sorted(map(repr, again.runs)) == sorted(map(repr, results.runs))
    performed(settings(tmp_path))  # the second round
    assert len(scripted.calls) == 6
    performed(settings(tmp_path, threads=2, rounds=1))  # other conditions
    performed(settings(tmp_path, fresh=True, rounds=1))
    assert len(scripted.calls) == 12


def test_a_damaged_result_is_measured_again(tmp_path: Path, scripted: Script) -> None:
    performed(settings(tmp_path, rounds=1))
    for path in (tmp_path / "parts").rglob("*.json"):
        path.write_text("{")
    performed(settings(tmp_path, rounds=1))
    assert len(scripted.calls) == 6


def test_a_failure_is_reported_and_tried_again(tmp_path: Path, scripted: Script) -> None:
    scripted.numbers = {"error": "its process ended"}
    results = performed(settings(tmp_path))
    assert [each.error for each in results.runs] == ["its process ended"] * 3  # and no second round
    assert not lines(results.runs)
    scripted.numbers = NUMBERS
    assert not any(each.error for each in performed(settings(tmp_path, rounds=1)).runs)


def test_long_runs_are_not_repeated(tmp_path: Path, scripted: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "LONG_S", 0.0)
    assert len(performed(settings(tmp_path)).runs) == 3


def test_nothing_starts_without_time(tmp_path: Path, scripted: Script) -> None:
    assert not performed(settings(tmp_path, budget_s=0)).runs
    assert not scripted.calls


def test_an_interruption_keeps_what_is_finished(tmp_path: Path, scripted: Script) -> None:
    performed(settings(tmp_path, rounds=1))
    scripted.numbers = {"raise": True}
    results = performed(settings(tmp_path))
    assert results.interrupted
    assert len(results.runs) == 3


# Judgements


def made(
    contender: str, seconds: float, inertia: float, points: tuple[tuple[float, float], ...] = (), **more: Any
) -> Run:
    numbers = NUMBERS | {"seconds": seconds, "inertia": inertia, "inertias": points, "wall": seconds} | more
    return Run(CELL, contender, 0, numbers)


@given(st.lists(st.tuples(positive, positive), max_size=5), positive, positive, positive, positive)
def test_ours_leads_where_a_pass_is_as_good_and_as_early(
    points: list[tuple[float, float]], seconds: float, inertia: float, end: float, last: float
) -> None:
    found = lines([made(OURS, end, last, tuple(points)), made(FAISS, seconds, inertia)])
    rival = best_rival(found, CELL)
    assert rival is not None
    reached = reach(found, rival)
    assert reached is not None
    early = [when for when, what in [*points, (end, last)] if what <= inertia]
    assert reached.seconds == min(early, default=None)
    assert (reached.lead >= 1) == any(when <= seconds for when in early)
    (verdict,) = [each for each in bars.judge(found, []) if "as called" in each.requirement]
    assert verdict.met == (reached.lead >= 1)


@given(
    st.lists(
        st.tuples(st.sampled_from([FAISS, SKLEARN, OURS, "faiss, same seeds"]), positive, positive), min_size=1
    )
)
def test_the_best_rival_is_the_fastest_of_the_good(given: list[tuple[str, float, float]]) -> None:
    found = lines([made(*each) for each in {each[0]: each for each in given}.values()])
    others = [line for line in found if line.contender.name in (FAISS, SKLEARN)]
    best = best_rival(found, CELL)
    if best is None:
        assert not others
        return
    assert best in others
    assert all(best.inertia <= (1 + SAME) * line.inertia for line in others)
    assert all(best.seconds <= line.seconds for line in others if line.inertia <= best.inertia)


def test_a_line_has_the_median_of_its_rounds_and_the_largest_memory() -> None:
    runs = [made(FAISS, seconds, 2 * seconds, peak_bytes=peak) for seconds, peak in ((3, 5), (1, 9), (2, 7))]
    (line,) = lines([*runs, Run(CELL, FAISS, 3, {"error": "stopped"})])
    assert (line.seconds, line.inertia, line.peak_bytes, line.rounds) == (2, 4, 9, 3)
    assert line.per_pass == 2 / 4
    assert line.errors == ("stopped",)


def seeded(ours: float, faiss: float, inertia: float) -> dict[str, bool | None]:
    runs = [made("ours, same seeds", ours, 1.0), made("faiss, same seeds", faiss, inertia)]
    return {each.requirement: each.met for each in bars.judge(lines(runs), runs)}


def test_the_same_seeds_are_judged_by_seconds_per_pass_and_inertia() -> None:
    def verdicts(*numbers: float) -> list[bool | None]:
        return [met for requirement, met in seeded(*numbers).items() if "same seeds" in requirement]

    assert verdicts(1, 1.01, 1 + SAME / 2) == [True, True]
    assert verdicts(1.01, 1, 1 + 2 * SAME) == [False, False]


def test_a_failure_of_ours_is_a_bar_that_is_not_met() -> None:
    runs = [made(FAISS, 1, 1), Run(CELL, OURS, 0, {"error": "stopped"})]
    assert bars.judge(lines(runs), runs)[-1].met is False
    assert bars.judge(lines(runs[:1]), runs[:1])[-1].met is True


# The command


@pytest.mark.slow
def test_the_command_measures_reports_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    names = ["ours", "ours, same seeds", "faiss", "faiss, same seeds", "faiss product"]
    words = [
        "offline", "--cells", "kmeans:patches:2000x64x16,product:patches:2000x64x8x16", "--rounds", "1",
        "--threads", "1", "--out", str(tmp_path), *(word for name in names for word in ("--contenders", name)),
    ]  # fmt: skip
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "offline.json").read_text())
    kmeans, product = record["cells"]
    assert [each["contender"] for each in kmeans["contenders"]] == [
        "ours, same seeds", "faiss, same seeds", "ours", "faiss"
    ]  # fmt: skip
    assert [each["contender"] for each in product["contenders"]] == ["faiss product"]
    for each in (*kmeans["contenders"], *product["contenders"]):
        assert each["seconds"] > 0
        assert 0 < each["inertia"] < 18  # the variance of the patches
        assert each["instructions"]
        assert not each["errors"]
    ours, faiss = kmeans["contenders"][:2]
    assert ours["inertia"] == pytest.approx(faiss["inertia"], rel=SAME)
    assert record["machine"]["threads"] == 1
    assert {"torch", "faiss-cpu", "scikit-learn"} <= record["versions"].keys()
    report = (tmp_path / "offline.md").read_text()
    for name in ("kmeans.png", "composed.png"):
        assert f"]({name})" in report
        with Image.open(tmp_path / name) as picture:
            picture.load()
            assert min(picture.size) > 400
    again = CliRunner().invoke(app, [*words, "--budget", "0"])
    assert again.exit_code == 0, again.output
    assert json.loads((tmp_path / "offline.json").read_text())["cells"] == record["cells"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--cells", "1e9"], "--cells: got '1e9'"),
        (["--cells", ","], "--cells: got no value"),
        (["--contenders", "scikit"], "--contenders: got 'scikit'"),
    ],
)
def test_bad_input_is_a_sentence(options: list[str], sentence: str) -> None:
    result = CliRunner().invoke(app, ["offline", *options])
    assert result.exit_code == 2
    assert sentence in " ".join(result.output.split())


def test_no_report_without_a_run(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["offline", "--cells", "1e7", "--budget", "0", "--out", str(tmp_path)])
    assert result.exit_code == 0
    assert "No run was finished" in result.output
    assert not (tmp_path / "offline.json").exists()
