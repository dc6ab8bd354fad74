"""The goals of a report: met exactly if every number passes, and not met by what was not measured."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.gpu import goals, report
from benchmarks.gpu.contenders import SEARCHES
from benchmarks.gpu.exact import LARGE, SETS
from benchmarks.gpu.flash import COUNTERPARTS
from benchmarks.gpu.goals import GOALS, LAUNCHED, MET, MISSED, NOT_MEASURED, judge, verdicts
from benchmarks.gpu.graphs import named_graph
from benchmarks.gpu.others import BENCH
from benchmarks.gpu.smoke import CASES
from benchmarks.gpu.speed import SHAPES
from benchmarks.kernels.rivals import CDIST, OURS
from benchmarks.kernels.steps import GUMBEL, PAIRS, VQ

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = ROOT / "benchmarks" / "results" / "gpu-h200"
WHERE = str(goals.LARGE_SHAPE)
OUT_OF_MEMORY = "not enough memory"

# Of each ratio in a report, by the start of the goal's name.
RATIOS = {
    "exact: share of the tf32x3 floor": 0.6,
    "medium: share of the bf16 floor": 0.6,
    "high and medium, graph": 1.5,
    "high and medium, eager": 1.5,
    "exact, graph": 6.0,
    "exact, eager": 6.0,
    **{f"step of {pair.ours.name}, {how}": 7.0 for pair in PAIRS for how in ("graph", "eager")},
}
COUNTS = {"operations that fail": 0, "exact: share of wrong indices": 0.0, "tests that fail": 0}


def named(start: str) -> goals.Goal:
    (goal,) = [goal for goal in GOALS if goal.name.startswith(start)]
    return goal


def record(**changed: float) -> dict[str, Any]:
    """A report in which every goal is measured and met, but for the ratios and counts that are given by name."""
    numbers = {**RATIOS, **COUNTS, **changed}
    parts = {f"search {shape}": search_part(str(shape), numbers) for shape in SHAPES}
    parts |= {f"step {shape}": timed({name: 1.0 for pair in PAIRS for name in both(pair.ours.name)})
              for shape in SHAPES}  # fmt: skip
    for kind, how in (("peer's step ", "eager"), ("graph of the peer's step ", "graph")):
        for shape in SHAPES:
            times = {pair.peer.name: numbers[f"step of {pair.ours.name}, {how}"] for pair in PAIRS}
            parts[kind + str(shape)] = timed(
                {named_graph(name) if how == "graph" else name: value for name, value in times.items()}
            )
    wrong = numbers["exact: share of wrong indices"]
    failing = numbers["operations that fail"]
    stages = {
        "smoke": {part: {"error": "wrong"} if i < failing else {} for i, part in enumerate(CASES)},
        "exact": {part: {"wrong_share": {"highest": 0.0}, "rows": 4096} for part in (*SETS, *LARGE)},
        "tests": {f"{i} of 2": {"failed": 0, "stopped": False} for i in (1, 2)},
        "speed": {**parts, BENCH: {"table": "| vq |"}},
    }
    stages["exact"]["normal, K 8192, D 8"]["wrong_share"]["highest"] = wrong
    stages["tests"]["2 of 2"]["failed"] = numbers["tests that fail"]
    return {
        "benchmark": "gpu",
        "interpreted": False,
        "stages": {name: {"limit": 60.0, "seconds": 1.0, "parts": each} for name, each in stages.items()},
    }


def both(name: str) -> tuple[str, str]:
    return name, named_graph(name)


def timed(milliseconds: dict[str, float]) -> dict[str, Any]:
    return {"times_ms": {name: {"median": value} for name, value in milliseconds.items()}, "failures": {}}


def search_part(shape: str, numbers: dict[str, float]) -> dict[str, Any]:
    """Ours takes 1 ms as a graph and as long as makes the ratio to cdist in eager mode."""
    graph, eager = numbers["exact, graph"], numbers["exact, eager"]
    times = {named_graph(search.rival.name): 1.0 for search in SEARCHES}
    times |= {search.rival.name: 1.0 for search in SEARCHES} | {CDIST: graph, OURS: graph / eager}
    for flash in COUNTERPARTS.values():
        times[named_graph(flash)] = numbers["high and medium, graph"]
        times[flash] = numbers["high and medium, eager"]
    exact, _, bf16 = SEARCHES
    shares = {
        exact.graph.name: numbers["exact: share of the tf32x3 floor"],
        bf16.graph.name: numbers["medium: share of the bf16 floor"],
    }
    return {**timed(times), "share_of_floor": shares if shape == WHERE else {}}


def test_a_report_of_goals_that_are_met() -> None:
    assert {each.verdict for each in verdicts(record())} == {MET}


@given(start=st.sampled_from(sorted(RATIOS)), number=st.floats(0.01, 100))
def test_a_ratio_meets_its_goal_if_it_passes(start: str, number: float) -> None:
    found = {each.goal.name: each for each in verdicts(record(**{start: number}))}
    goal = named(start)
    # The ratio of two medians is rounded.
    near = abs(number - goal.limit) < 1e-9
    expected = {MET, MISSED} if near else {MET if goal.passes(number) else MISSED}
    assert found[goal.name].verdict in expected
    assert found[goal.name].number == pytest.approx(number)
    assert {each.verdict for name, each in found.items() if name != goal.name} == {MET}


@given(start=st.sampled_from(sorted(COUNTS)), number=st.integers(0, 3))
def test_a_count_meets_its_goal_if_it_is_zero(start: str, number: int) -> None:
    found = {each.goal.name: each.verdict for each in verdicts(record(**{start: number}))}
    assert found.pop(named(start).name) == (MISSED if number else MET)
    assert set(found.values()) == {MET}


@given(st.data())
def test_what_is_left_of_a_report_meets_no_more_goals(data: st.DataObject) -> None:
    """A run may end anywhere. Goals that it missed may become goals that were not measured, and nothing else."""
    changed = data.draw(st.dictionaries(st.sampled_from(sorted(RATIOS)), st.just(0.1), max_size=3))
    whole = record(**changed)
    before = {each.goal.name: each.verdict for each in verdicts(whole)}
    for stage in whole["stages"].values():
        gone = data.draw(st.sets(st.sampled_from(sorted(stage["parts"])), max_size=8))
        stage["parts"] = {part: numbers for part, numbers in stage["parts"].items() if part not in gone}
    for each in verdicts(whole):
        assert each.verdict in (before[each.goal.name], NOT_MEASURED)


def test_nothing_is_measured_in_an_empty_report() -> None:
    empty = {"benchmark": "gpu", "interpreted": False, "stages": {}}
    for each in verdicts(empty):
        assert (each.verdict, each.number) == (NOT_MEASURED, None)
        assert each.measured.missing


def test_one_place_of_many_decides() -> None:
    missed = record()
    missed["stages"]["speed"]["parts"]["peer's step 32768x8192x8"]["times_ms"][PAIRS[0].peer.name]["median"] = 4.5
    found = judge(named(f"step of {VQ}, eager"), missed["stages"])
    assert (found.verdict, found.number, found.where) == (MISSED, 4.5, "32768x8192x8")


@pytest.mark.parametrize("kind", ["peer's step ", "graph of the peer's step "])
def test_a_peer_without_the_memory_is_excused_and_one_that_was_not_run_is_not(kind: str) -> None:
    peer = named_graph(PAIRS[0].peer.name) if kind.startswith("graph") else PAIRS[0].peer.name
    goal = named(f"step of {VQ}, {'graph' if kind.startswith('graph') else 'eager'}")
    for failures, verdict in (({peer: OUT_OF_MEMORY}, MET), ({}, NOT_MEASURED)):
        report_ = record()
        part = report_["stages"]["speed"]["parts"][kind + WHERE]
        del part["times_ms"][peer]
        part["failures"] = failures
        found = judge(goal, report_["stages"])
        assert found.verdict == verdict
        assert found.measured.excused == ({WHERE: OUT_OF_MEMORY} if failures else {})
        assert found.measured.missing == ([] if failures else [WHERE])


def test_sampled_codes_are_not_run_where_they_take_seconds() -> None:
    report_ = record()
    for shape in SHAPES:
        if shape.n * shape.k > 2**31:
            for kind in ("step ", "peer's step ", "graph of the peer's step "):
                del report_["stages"]["speed"]["parts"][kind + str(shape)]
    for how in ("graph", "eager"):
        assert judge(named(f"step of {GUMBEL}, {how}"), report_["stages"]).verdict == MET
        assert judge(named(f"step of {VQ}, {how}"), report_["stages"]).verdict == NOT_MEASURED


def test_searches_that_launches_bound_do_not_count() -> None:
    few = [shape for shape in SHAPES if shape.n * shape.k < LAUNCHED]
    assert list(map(str, few)) == ["8192x1024x256"]
    report_ = record()
    report_["stages"]["speed"]["parts"][f"search {few[0]}"] = timed(
        {CDIST: 1.0, OURS: 1.0, named_graph(OURS): 1.0}
    )
    for how in ("graph", "eager"):
        assert judge(named(f"exact, {how}"), report_["stages"]).verdict == MET


def test_tests_that_did_not_end_are_not_green() -> None:
    goal = named("tests that fail")
    for numbers, verdict in (
        ({"failed": 0, "stopped": True}, NOT_MEASURED),
        ({"failed": 1, "stopped": True}, MISSED),
        ({"error": "not started: the stage's time was over"}, NOT_MEASURED),
    ):
        report_ = record()
        report_["stages"]["tests"]["parts"]["1 of 2"] = numbers
        assert judge(goal, report_["stages"]).verdict == verdict


@pytest.mark.parametrize(
    ("numbers", "verdict"),
    [
        ({"table": "| vq |"}, MET),
        ({"error": "RuntimeError: make bench ended with code 1"}, MISSED),
        ({"error": "stopped: the stage's time was over"}, NOT_MEASURED),
        ({"left_out": ["matplotlib is not installed"], "mse": {"vq": 0.1}, "failures": {}}, NOT_MEASURED),
    ],
)
def test_make_bench_is_judged_by_its_table(numbers: dict[str, Any], verdict: str) -> None:
    report_ = record()
    report_["stages"]["speed"]["parts"][BENCH] = numbers
    assert judge(named(BENCH), report_["stages"]).verdict == verdict


def test_a_search_that_fails_does_not_run() -> None:
    report_ = record()
    part = report_["stages"]["speed"]["parts"][f"search {goals.WIDEST_SHAPE}"]
    del part["times_ms"][OURS]
    part["failures"] = {OURS: "out of memory"}
    assert judge(named("exact: runs"), report_["stages"]).verdict == MISSED


def test_the_committed_report_is_judged_by_its_own_numbers() -> None:
    committed = report.read(COMMITTED)
    found = {each.goal.name: each for each in verdicts(committed)}
    parts = committed["stages"]["speed"]["parts"]
    shares = parts[f"search {WHERE}"]["share_of_floor"]
    for start, search in (("exact: share of the tf32x3", SEARCHES[0]), ("medium: share", SEARCHES[2])):
        each = found[named(start).name]
        assert (each.verdict, each.number) == (MISSED, shares[search.graph.name])
    assert found[named("exact: share of wrong").name].verdict == MET
    assert found[named("exact: runs").name].verdict == MET
    failed = sum(numbers["failed"] for numbers in committed["stages"]["tests"]["parts"].values())
    assert (found["tests that fail"].verdict, found["tests that fail"].number) == (MISSED, failed)
    times = parts[f"search {WHERE}"]["times_ms"]
    each = found[named("exact, graph").name]
    assert each.verdict == MISSED
    assert (each.where, each.number) == (WHERE, times[CDIST]["median"] / times[named_graph(OURS)]["median"])
    # Neither was installed.
    for name, each in found.items():
        if "the peer's" in name or "flash" in name:
            assert each.verdict == NOT_MEASURED


def test_the_table_of_goals_comes_before_that_of_stages() -> None:
    *_, sheet, stages = report.sheets(record(**{"medium: share of the bf16 floor": 0.25}))
    assert (sheet.title, stages.title) == ("Goals", "Stages")
    assert ["medium: share of the bf16 floor", "≥ 0.5", MISSED, "0.25", WHERE, "-", "-"] in sheet.rows
    interpreted = record() | {"interpreted": True}
    assert "Goals" not in [sheet.title for sheet in report.sheets(interpreted)]
