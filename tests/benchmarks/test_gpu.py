"""`python -m benchmarks gpu` without a GPU: its stages in Triton's interpreter, and what can go wrong."""

import ast
import dataclasses
import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from benchmarks.cli.app import app
from benchmarks.errors import InputError
from benchmarks.gpu import contenders, findings, host, others, processes, report, smoke, speed, suites
from benchmarks.gpu import run as running
from benchmarks.gpu.compiling import watch_compiler
from benchmarks.gpu.exact import EXACT
from benchmarks.gpu.flash import FLASH_BF16
from benchmarks.gpu.processes import Work, run_phase
from benchmarks.gpu.registry import ON_REQUEST, STAGES
from benchmarks.gpu.stages import Numbers, Phase, Stage
from benchmarks.gpu.summary import summary, worst_shares
from benchmarks.gpu.units import ALL, UNITS
from benchmarks.kernels.rivals import FLASH, OURS, OURS_HIGH, OURS_MEDIUM, Rival, usable
from tests.benchmarks import faulty_stage
from tests.triton.aot import compile_for
from tests.triton.interpreter import compiles_kernels

ROOT = Path(__file__).resolve().parents[2]
NORMAL = "normal, K 8192, D 8"
NOTHING_OPTIONAL = """
import runpy, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in OPTIONAL:
            raise ModuleNotFoundError(f"{name} is not installed", name=name)

OPTIONAL = {
    "PIL", "accelerate", "constriction", "diffusers", "faiss", "huggingface_hub", "lightning", "matplotlib",
    "onnx", "onnxruntime", "onnxscript", "pytest_benchmark", "safetensors", "skimage", "sklearn", "torchmetrics",
    "transformers", "vector_quantize_pytorch", "xdist",
}
sys.meta_path.insert(0, Missing())
"""


def command(*options: object) -> Any:
    return CliRunner().invoke(app, ["gpu", *map(str, options)])


# -- the stages in the interpreter


def interpreted(stage: str, out: Path) -> dict[str, Numbers]:
    """The parts of a stage, after the command has ended well."""
    result = command("--interpret", "--stage", stage, "--out", out)
    assert result.exit_code == 0, result.output
    record = json.loads((out / "gpu.json").read_text())
    assert record["finished"] is True
    assert record["interpreted"] is True
    assert {"torch", "triton", "numpy", "python"} <= record["versions"].keys()
    assert {"machine", "revision", "date"} <= record.keys()
    assert list(record["stages"]) == [stage]
    parts: dict[str, Numbers] = record["stages"][stage]["parts"]
    expected = [part for phase in STAGES[stage].phases(True, 2) for part in phase.parts]
    assert sorted(parts) == sorted(expected)
    assert not any("error" in numbers for numbers in parts.values())
    last = [line for line in result.output.splitlines() if line.startswith(stage)][-1]
    assert last.split()[:3] == [stage, str(len(parts)), "0"]
    return parts


def launched_kernels() -> set[str]:
    """The kernels that a launcher of the library starts, by its source: `kernel[grid](...)`."""
    jitted, launched = set(), set()
    for path in (ROOT / "kernels").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and "triton.jit" in map(_name, node.decorator_list):
                jitted.add(node.name)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Subscript):
                launched.add(ast.unparse(node.func.value))
    return jitted & launched


def _name(decorator: ast.expr) -> str:
    return ast.unparse(decorator.func if isinstance(decorator, ast.Call) else decorator)


def keep_parts(monkeypatch: pytest.MonkeyPatch, name: str, every: int) -> None:
    """Let a stage have one in `every` of the parts of each phase."""
    stage = STAGES[name]

    def phases(*arguments: Any) -> list[Phase]:
        return [Phase(phase.parts[::every], phase.workers) for phase in stage.phases(*arguments)]

    monkeypatch.setitem(STAGES, name, dataclasses.replace(stage, phases=phases))


@pytest.mark.slow
@pytest.mark.parametrize("every", [8, pytest.param(1, marks=pytest.mark.long)])
def test_smoke_runs_every_kernel(every: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_parts(monkeypatch, "smoke", every)
    parts = interpreted("smoke", tmp_path)
    kernels = {name for numbers in parts.values() for name in numbers["kernels"]}
    assert len(kernels) > 1
    assert kernels <= launched_kernels()
    assert every > 1 or kernels == launched_kernels()


@pytest.mark.long("an end-to-end run")
@pytest.mark.slow
def test_exact_counts_and_measures(tmp_path: Path) -> None:
    parts = interpreted("exact", tmp_path)
    assert not any(numbers.get("certain but wrong") for numbers in parts.values())
    assert not any(numbers.get("wrong_share", {}).get("highest") for numbers in parts.values())
    assert parts[NORMAL]["left"] == 0
    assert parts["collapsed to one code, K 1024, D 64"]["left"] == 1
    assert all(set(parts[part]["kept"].values()) == {ALL} for part in UNITS)
    sums = [numbers for part, numbers in parts.items() if part.startswith("sums")]
    assert sums
    # The interpreter adds in float32, whose error a bound for truncated sums covers.
    assert all(0 < numbers["share_of_bound"] < 1 for numbers in sums)


@pytest.mark.slow
def test_tiles_times_the_loop_in_several_sizes(tmp_path: Path) -> None:
    (numbers,) = interpreted("tiles", tmp_path).values()
    assert not numbers["failures"]
    assert numbers["chosen"] in numbers["tiles_ms"]
    assert len(numbers["tiles_ms"]) >= 2
    assert list(numbers["tiles_ms"].values()) == sorted(numbers["tiles_ms"].values())
    printed = CliRunner().invoke(app, ["gpu-report", str(tmp_path)]).output
    assert "Tiles of the search" in printed
    assert f"{numbers['chosen']} *" in " ".join(printed.split())


def test_some_stages_run_on_request_alone(tmp_path: Path) -> None:
    names = [stage.name for stage in running.settle([], True, tmp_path, 1).stages]
    assert names == [name for name in STAGES if name not in ON_REQUEST]
    assert [stage.name for stage in running.settle(["tiles"], True, tmp_path, 1).stages] == ["tiles"]


def run_on_cpu(rivals: Iterable[Rival]) -> set[str]:
    return {rival.name for rival in rivals if "cpu" in rival.devices}


@pytest.mark.long("an end-to-end run")
@pytest.mark.slow
@pytest.mark.parametrize("every", [100, pytest.param(1, marks=pytest.mark.long)])
def test_speed_times_searches(every: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_parts(monkeypatch, "speed", every)
    parts = interpreted("speed", tmp_path)
    search = parts[f"search {speed.TINY}"]
    assert not search["failures"]
    assert set(search["times_ms"]) == run_on_cpu(contenders.SEARCHED)
    variants = parts["host " + host.VARIANTS]["variants"]
    assert variants
    assert set(variants.values()) == {1}
    assert every > 1 or steps_are_timed(parts)


def steps_are_timed(parts: dict[str, Numbers]) -> bool:
    step, kernels = parts[f"step {speed.TINY}"], parts[f"kernels {speed.TINY}"]
    assert not step["failures"]
    assert set(step["times_ms"]) == run_on_cpu(contenders.STEPPED)
    assert not kernels["failures"]
    searches = {search.rival.name for search in contenders.SEARCHES}
    assert set(kernels["launched"]) == searches | {step.name for step in contenders.STEPS}
    peers = parts[f"peer's step {speed.TINY}"]
    assert set(peers["times_ms"]) == {peer.name for peer in usable(contenders.PEERS, torch.device("cpu"))[0]}
    for kind in (others.K_NEAREST, others.FIT):
        assert parts[f"{kind}{speed.TINY}"]["times_ms"]
    assert not any(parts[f"{others.TUNE}{speed.TINY}"]["different"].values())
    assert parts[others.BENCH]["table"].startswith("| quantizer |")
    return True


@pytest.mark.long("an end-to-end run")
@pytest.mark.slow
def test_tests_are_shared_and_counted(tmp_path: Path) -> None:
    parts = interpreted("tests", tmp_path)
    assert sum(numbers["cases"] for numbers in parts.values()) >= 7
    assert all(numbers["cases"] and not numbers["failed"] and not numbers["stopped"] for numbers in parts.values())


@triton.jit
def _copy_kernel(from_ptr, to_ptr):  # type: ignore[no-untyped-def]
    tl.store(to_ptr, tl.load(from_ptr))


@compiles_kernels
def test_compiled_kernels_are_counted_and_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path))  # empty
    with watch_compiler() as kernels:
        for dtype in ("*fp32", "*fp32", "*i64"):  # the second is in the cache
            compile_for(_copy_kernel, {"from_ptr": dtype, "to_ptr": dtype}, {})
    assert list(kernels) == ["_copy_kernel"]
    counted = kernels["_copy_kernel"]
    assert (counted["variants"], counted["compiled"]) == (3, 2)
    assert counted["seconds"] > 0


# -- a wrong kernel


def test_smoke_finds_a_wrong_result() -> None:
    right = torch.arange(4.0, dtype=torch.float64)
    indices = torch.arange(4)
    assert smoke._check([right.float(), indices], [right, indices])["worst_error"] == 0
    for wrong in (right + 0.01, right.where(right != 2, torch.nan), right[:3]):
        with pytest.raises(smoke.Mismatch):
            smoke._check([wrong.float(), indices], [right, indices])
    with pytest.raises(smoke.Mismatch, match="2 indices are wrong"):
        smoke._check([right.float(), indices.flip(0) * 0 + torch.tensor([0, 1, 1, 1])], [right, indices])


def test_smoke_accepts_codes_that_rounded_products_cannot_tell_apart() -> None:
    x, codebook = torch.zeros(1, 1, 2).double(), torch.tensor([[[1.0, 0], [-1.0001, 0], [0, 30]]]).double()
    for index, is_near in ((0, True), (1, True), (2, False), (3, False), (-1, False)):
        indices = torch.tensor([[index]])
        if is_near:
            smoke._check_near(indices, x, codebook)
        else:
            with pytest.raises(smoke.Mismatch):
                smoke._check_near(indices, x, codebook)


# -- processes that end early


def run_faulty(
    out: Path, parts: tuple[str, ...], seconds: float, workers: int = 1, part_seconds: float = math.inf
) -> dict[str, Numbers]:
    found: dict[str, Numbers] = {}
    work = Work("faulty", out, True, time.monotonic() + seconds, Event(), found.__setitem__)
    run_phase(work, Phase(parts, workers, part_seconds))
    return found


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "CHILD", "tests.benchmarks.faulty_stage")
    monkeypatch.setattr("benchmarks.processes.GRACE", 0.2)


@pytest.mark.long("an end-to-end run")
@pytest.mark.slow
@pytest.mark.usefixtures("faulty")
def test_the_other_parts_go_on_whatever_one_does(tmp_path: Path) -> None:
    found = run_faulty(tmp_path, faulty_stage.PARTS, 300)
    assert list(found) == list(faulty_stage.PARTS)
    assert "ValueError: a wrong result" in found["raises"]["error"]
    assert 'raise ValueError("a wrong result")' in found["raises"]["trace"]
    assert "code -9" in found["is killed"]["error"]
    assert "illegal memory access" in found["breaks the device"]["error"]
    assert "no such kernel" in found["exits"]["error"]
    first, second, third = (found[part]["pid"] for part in ("fine", "fine as well", "fine at last"))
    assert len({first, second, third}) == 3  # a process whose device is broken runs nothing more


@pytest.mark.long("an end-to-end run")
@pytest.mark.slow
@pytest.mark.usefixtures("faulty")
def test_the_time_limit_ends_what_hangs(tmp_path: Path) -> None:
    begin = time.monotonic()
    found = run_faulty(tmp_path, ("fine", "hangs and ignores signals", "fine as well"), 15)
    assert time.monotonic() - begin < 60  # it would sleep for 600 seconds
    assert found["fine"]["pid"]
    assert found["hangs and ignores signals"]["error"].startswith("stopped")
    assert found["fine as well"]["error"].startswith("not started")


@pytest.mark.long("an end-to-end run")
@pytest.mark.slow
@pytest.mark.usefixtures("faulty")
def test_a_part_that_hangs_leaves_the_others_their_time(tmp_path: Path) -> None:
    found = run_faulty(tmp_path, ("fine", "hangs and ignores signals", "fine as well"), 300, part_seconds=3)
    assert list(found) == ["fine", "hangs and ignores signals", "fine as well"]
    assert found["hangs and ignores signals"]["error"] == "stopped after 3 s, the limit of such a part"
    assert found["fine"]["pid"] != found["fine as well"]["pid"]


@pytest.mark.usefixtures("faulty")
def test_a_process_that_cannot_start_is_an_error_of_all_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "CHILD", "benchmarks.gpu.no_such_module")
    found = run_faulty(tmp_path, ("fine", "raises"), 100, workers=2)
    assert set(found) == {"fine", "raises"}
    assert all("no_such_module" in numbers["error"] for numbers in found.values())


def test_without_time_nothing_starts(tmp_path: Path) -> None:
    assert run_faulty(tmp_path, ("fine",), 0) == {"fine": {"error": f"not started: {processes.TIME_OVER}"}}


@pytest.mark.slow
@pytest.mark.usefixtures("faulty")
def test_the_report_survives_every_stage(tmp_path: Path) -> None:
    """On disk after each part, with all that was measured before a part that is killed."""
    on_disk = []

    def said(stage: str, part: str, numbers: Numbers) -> None:
        on_disk.append(set(json.loads((tmp_path / "gpu.json").read_text())["stages"]["faulty"]["parts"]))

    late = Stage("late", 60, lambda interpreted, workers: [Phase(("never",))], faulty_stage.run)
    some = Stage("faulty", 60, lambda interpreted, workers: [Phase(("fine", "is killed"))], faulty_stage.run)
    record = running.run(running.Settings((some, late), True, tmp_path, 300), said)
    assert on_disk[:2] == [{"fine"}, {"fine", "is killed"}]
    assert json.loads((tmp_path / "gpu.json").read_text()) == record
    assert record["finished"] is True
    assert "invalid choice" in record["stages"]["late"]["parts"]["never"]["error"]  # the child has no such stage
    assert report.has_failed(record)


@pytest.mark.usefixtures("faulty")
def test_an_interrupted_run_ends_its_processes_and_keeps_its_report(tmp_path: Path) -> None:
    def said(stage: str, part: str, numbers: Numbers) -> None:
        raise KeyboardInterrupt

    begin = time.monotonic()
    first = Stage("faulty", 300, lambda interpreted, workers: [Phase(("fine", "hangs"))], faulty_stage.run)
    second = Stage("late", 300, lambda interpreted, workers: [Phase(("fine",))], faulty_stage.run)
    record = running.run(running.Settings((first, second), True, tmp_path, 300), said)
    assert time.monotonic() - begin < 100
    assert (record["interrupted"], record["finished"]) == (True, False)
    stages = json.loads((tmp_path / "gpu.json").read_text())["stages"]
    assert list(stages) == ["faulty"]
    assert list(stages["faulty"]["parts"]) == ["fine"]
    with pytest.raises(ProcessLookupError):
        os.kill(stages["faulty"]["parts"]["fine"]["pid"], 0)


# -- reading a report


def timed(**milliseconds: float) -> dict[str, Any]:
    return {name: {"median": value} for name, value in milliseconds.items()}


def bad_record() -> dict[str, Any]:
    """A report in which every kind of finding occurs."""
    ours = contenders.SEARCHES[0]
    stage = {"limit": 60.0, "seconds": 50.0}
    sums = {"needed": 3.0, "constant": 2.25}
    smoked = {
        "sums": {"error": "OutOfResources: too many registers\nat line 3"},
        "levels": {"kernels": {"_slow": {"variants": 1, "compiled": 1, "seconds": 30}}},
    }
    exact = {
        "normal, K 8192, D 8": {
            "left": 0.05,
            "certain but wrong": 2,
            "rows": 64,
            "wrong_share": {"highest": 0.25},
        },
        "sums, normal, D 8": {"share_of_bound": 1.5, **sums},
        "sums, normal, D 64": {"share_of_bound": 0.5, **sums},
        "matrix unit, tf32": {
            "kept": {"none": 2, "large": -1, "small": ALL},
            "cut": "truncated",
            "alone": True,
            "step": 4,
            "end": "truncated",
        },
    }
    times = timed(**{OURS: 4.0, ours.graph.name: 1.0, "cdist + argmin": 2.0})
    times |= timed(**{f"{OURS_HIGH}, graph": 0.9, f"{FLASH}, graph": 0.8, f"{FLASH_BF16}, graph": 0.1})
    timings = {
        "search 8x8x8": {"times_ms": times, "share_of_floor": {OURS: 0.1, ours.graph.name: 0.4}, "failures": {}},
        "search 9x9x9": {
            "times_ms": timed(**{OURS: 1.0}),
            "share_of_floor": {OURS: 0.2},
            "failures": {"ours, high": "out of registers", "cdist + argmin": "not enough memory"},
        },
        "host nearest_code": {
            "eager_us": 30.0,
            "kernels_launched": 12,
            "waits": "called a synchronizing operation",
            "no_graph": "capture failed",
        },
        "kernels 8x8x8": {
            "launched": {OURS: {"_search": {"launches": 1, "us": 30.0}, "_pack": {"launches": 2, "us": 10.0}}},
            "failures": {"VQ": "no profiler"},
        },
        f"host {host.VARIANTS}": {"variants": {"_search": 1, "_pack": 6}},
        "step 8x8x8": {"error": "not started: the stage's time was over"},
    }
    failed = {"error": "AssertionError: 1 != 2", "times": 3, "first": "tests.a::b", "message": ""}
    shares = {
        f"tests, {i} of 2": {"cases": 9, "failed": 3, "failures": [failed], "stopped": i == 2} for i in (1, 2)
    }
    stages = {"smoke": smoked, "exact": exact, "speed": timings, "tests": shares}
    return {
        "benchmark": "gpu",
        "interpreted": False,
        "stages": {name: {**stage, "parts": parts} for name, parts in stages.items()},
    }


def test_findings_come_in_the_order_of_urgency() -> None:
    found = findings.findings(bad_record())
    starts = [
        "smoke, sums, fails: OutOfResources: too many registers",
        "the certificate is wrong for 2 of 64 rows: normal, K 8192, D 8",
        "the bound (10) does not hold: an error is 1.50 times as large (sums, normal, D 8); its constant is 2.25",
        "matrix unit, tf32 (accumulator: large) loses 2^-23 beside 1, which the model behind (10) keeps",
        "matrix unit, tf32 adds 4 products at once, the model behind (10) at least 8",
        "25.00% of the indices of the exact search are wrong: normal, K 8192, D 8",
        "search ours, high at 9x9x9 fails: out of registers",
        "kernels VQ at 8x8x8 fails: no profiler",
        "6 tests fail: AssertionError: 1 != 2 (first tests.a::b)",
        "1 of 6 parts of speed did not start within 60 s",
        "the tests were stopped after 60 s",
        "nearest_code waits for the device: called a synchronizing operation",
        "nearest_code cannot be captured in a CUDA graph: capture failed",
        "_pack is compiled in 6 variants for eleven batch sizes",
        "search ours at 9x9x9 is at 20% of its floor",
        "search ours at 8x8x8 is at 40% of its floor; _search takes 75% of its kernels' time",
        "search ours at 8x8x8 takes 4 ms, cdist + argmin 2 ms",
        "search ours, high, graph at 8x8x8 takes 0.9 ms, flash-kmeans, graph 0.8 ms",
        "search ours at 8x8x8 takes 4.0 times as long as its CUDA graph",
        "5.0% of the rows are left to the exhaustive search: normal, K 8192, D 8",
        "_slow takes 30 s to compile",
        "cdist + argmin cannot run at 9x9x9: not enough memory",
    ]
    assert len(found) == len(starts), found
    for sentence, start in zip(found, starts, strict=True):
        assert sentence.startswith(start)


def test_a_bound_that_is_needlessly_large_is_a_finding() -> None:
    record = bad_record()
    for numbers in record["stages"]["exact"]["parts"].values():
        numbers |= {"share_of_bound": 0.2, "needed": 0.5} if "needed" in numbers else {}
    found = [sentence for sentence in findings.findings(record) if "the bound (10)" in sentence]
    assert len(found) == 1
    assert found[0].startswith("the constant of the bound (10) is 2.25, and 0.5 covers every measured error")
    record["interpreted"] = True  # whose sums are not the device's
    assert not [sentence for sentence in findings.findings(record) if "the bound (10)" in sentence]


@given(st.data())
def test_findings_and_tables_of_any_part_of_a_report(data: st.DataObject) -> None:
    """A run may end anywhere; what is left can be read, and holds no finding that the whole report has not."""
    record = bad_record()
    whole = findings.findings(record)
    for stage in record["stages"].values():
        kept = data.draw(st.sets(st.sampled_from(sorted(stage["parts"]))))
        stage["parts"] = {part: numbers for part, numbers in stage["parts"].items() if part in kept}
    record["stages"] = {
        name: stage for name, stage in record["stages"].items() if data.draw(st.booleans(), label=name)
    }
    counted = re.compile(r"\d+ (tests fail|of \d+ parts)|needed|its constant is")
    found = [sentence for sentence in findings.findings(record) if not counted.search(sentence)]
    # What follows a semicolon may come from another part.
    assert {sentence.partition(";")[0] for sentence in found} <= {sentence.partition(";")[0] for sentence in whole}
    assert report.sheets(record)[-1].title == "Stages"
    assert [row[0] for row in report.sheets(record)[-1].rows] == list(record["stages"])


def test_the_command_prints_findings_of_a_report(tmp_path: Path) -> None:
    (tmp_path / "gpu.json").write_text(json.dumps(bad_record()))
    for path in (tmp_path, tmp_path / "gpu.json"):
        result = CliRunner().invoke(app, ["gpu-report", str(path)])
        assert result.exit_code == 0
        numbered = [line for line in result.output.splitlines() if re.match(r"\d+\. ", line)]
        assert numbered == [f"{i}. {sentence}" for i, sentence in enumerate(findings.findings(bad_record()), 1)]


def test_the_tables_of_a_report() -> None:
    rows = {sheet.title: sheet.rows for sheet in report.sheets(bad_record())}
    assert rows["Percent of rows"] == [[NORMAL, "5", "25", "-", "-"]]
    assert rows["Errors of sums"][0] == ["sums, normal, D 8", "1.5", "3", "2.25"]
    (units,) = [rows for title, rows in rows.items() if title.startswith("Sums in a matrix unit")]
    assert units == [["tf32", "2", "-1", "all", "truncated", "yes", "4", "truncated"]]
    assert rows["One call, µs"] == [["nearest_code", "12", "-", "30", "-", "yes"]]
    assert rows["Kernels of one call, µs"] == [["8x8x8 ours", "3", "40", "_search 30", "_pack 10 (2)", "-", "-"]]
    # The graph's time where there is one, and the share of the same run.
    assert [row[:2] for row in rows["Searches, ms (share of the floor)"]] == [
        ["8x8x8", "1 (40%)"],
        ["9x9x9", "1 (20%)"],
    ]
    assert "Training steps, ms" not in rows
    assert list(rows)[-1] == "Stages"
    assert rows["Stages"][0] == ["smoke", "2", "1", "-", "-", "30", "50", "60"]
    assert rows["Stages"][-1] == ["tests", "2", "0", "18", "6", "0", "50", "60"]


def test_the_page_on_speed_shows_what_is_committed() -> None:
    """The table, and every number of the text beside it."""
    record = report.read(ROOT / "benchmarks" / "results" / "gpu-h200")
    text = " ".join((ROOT / "docs" / "results" / "speed.md").read_text().split())
    assert " ".join(summary(record).split()) in text
    versions, worst = record["versions"], worst_shares(record, "normal")
    where = f"{record['machine']['accelerator']}, torch {versions['torch']}, triton {versions['triton']}"
    assert f"{where}, {record['date'][:10]}, revision {record['revision']['commit'][:7]}." in text
    assert worst_shares(record)[EXACT] == 0
    sets = [numbers for numbers in record["stages"]["exact"]["parts"].values() if "wrong_share" in numbers]
    assert all(numbers["rows"] == 4096 for numbers in sets)
    assert f"none of 4096 indices is wrong on any of {len(sets)} data sets" in text
    assert f"{100 * worst['high']:.3g} % are wrong in `high` and {100 * worst['medium']:.3g} % in `medium`" in text
    eager = [
        numbers["times_ms"][name]["median"]
        for part, numbers in record["stages"]["speed"]["parts"].items()
        if part.startswith("search")
        for name in (OURS, OURS_HIGH, OURS_MEDIUM)
    ]
    assert f"ours takes at least {min(eager):.2g} ms at every shape" in text
    shares = record["stages"]["tests"]["parts"].values()
    cases, failed = (sum(numbers[name] for numbers in shares) for name in ("cases", "failed"))
    kinds = [kind for numbers in shares for kind in numbers["failures"]]
    warned = sum(kind["times"] for kind in kinds if kind["error"].startswith("UserWarning"))
    assert f"{failed} of {cases} tests failed, {warned} of them on warnings of torch" in text
    steps = [part for part in report.failures(record["stages"]["speed"]) if part.startswith("step")]
    assert len(steps) == 3


def test_a_report_without_findings_says_so(tmp_path: Path) -> None:
    record = {
        **bad_record(),
        "stages": {"smoke": {"limit": 60.0, "seconds": 1.0, "parts": {"levels": {"seconds": 1.0}}}},
    }
    (tmp_path / "gpu.json").write_text(json.dumps(record))
    assert "Nothing stands out." in CliRunner().invoke(app, ["gpu-report", str(tmp_path)]).output
    assert not report.has_failed(record)


@pytest.mark.parametrize(
    "numbers",
    [
        {"error": "x"},
        {"failed": 1},
        {"certain but wrong": 1},
        {"wrong_share": {"highest": 1e-9}},
        {"share_of_bound": 1.01},
    ],
)
def test_what_makes_the_command_fail(numbers: Numbers) -> None:
    assert report.has_failed({"stages": {"exact": {"parts": {"fine": {"seconds": 1.0}, "bad": numbers}}}})


def test_results_of_tests_are_grouped_by_message(tmp_path: Path) -> None:
    path = tmp_path / "results.xml"
    path.write_text(
        "<testsuites><testsuite>"
        '<testcase classname="a" name="1"/>'
        '<testcase classname="a" name="2"><skipped message="no"/></testcase>'
        '<testcase classname="a" name="3"><failure message="E: x&#10;more">trace</failure></testcase>'
        '<testcase classname="a" name="4"><failure message="E: y">trace</failure></testcase>'
        '<testcase classname="a" name="5"><failure message="E: x&#10;other">trace</failure></testcase>'
        '<testcase classname="a" name="6"><error message="">import failed</error></testcase>'
        "</testsuite></testsuites>"
    )
    numbers = suites.read_results(path)
    assert (numbers["cases"], numbers["skipped"], numbers["failed"]) == (6, 1, 4)
    first, *others = numbers["failures"]
    assert first == {"error": "E: x", "times": 2, "first": "a::3", "message": "E: x\nmore"}
    assert [(kind["error"], kind["times"]) for kind in others] == [("E: y", 1), ("import failed", 1)]


@given(count=st.integers(0, 50), n=st.integers(1, 20))
def test_shares_of_the_tests_are_a_partition(count: int, n: int) -> None:
    class Hook:
        def pytest_deselected(self, items: list[int]) -> None:
            deselected.extend(items)

    class Config:
        hook = Hook()

    kept: list[int] = []
    for i in range(n):
        deselected: list[int] = []
        items = list(range(count))
        suites.Share(i, n).pytest_collection_modifyitems(Config(), items)  # type: ignore[arg-type]
        assert sorted(items + deselected) == list(range(count))
        kept += items
    assert sorted(kept) == list(range(count))


def test_the_modules_with_a_gpu_mark_are_found() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in suites.gpu_modules()}
    assert {"tests/graphs/test_cuda.py", "tests/precision/test_autocast.py"} <= names
    assert not any("compiles" in path.name or "interpreted" in path.name for path in suites.triton_modules(False))
    assert len(suites.triton_modules(False)) > 5


# -- bad input, and a machine with little installed


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "no CUDA device was found"),
        (["--stage", "smok"], "got 'smok'; expected some of smoke, exact, tests, speed"),
        (["--stage", "smoke,"], "got ''; expected some of"),
        (["--interpret", "--out", __file__], "cannot write"),
    ],
)
def test_bad_input_is_a_sentence(
    options: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(running, "interpreter_obstacle", str)
    monkeypatch.chdir(tmp_path)
    result = command(*options)
    assert result.exit_code == 2
    assert sentence in result.output
    assert "Traceback" not in result.output
    assert not list(tmp_path.iterdir())


def test_an_interpreter_that_does_not_work_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(running, "interpreter_obstacle", lambda: "the interpreter does not work")
    with pytest.raises(InputError, match="--interpret: the interpreter does not work"):
        running.settle([], True, tmp_path, 1)


@pytest.mark.parametrize("text", ["", "[]", '{"benchmark": "kernels"}', None])
def test_what_is_no_report_is_named(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    if text is not None:
        path.write_text(text)
    result = CliRunner().invoke(app, ["gpu-report", str(path)])
    assert result.exit_code == 2
    assert "gpu.json" in " ".join(result.output.split())


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [
    ["benchmarks", "gpu", "--help"],
    ["benchmarks", "gpu-report", "REPORT"],
    ["benchmarks.gpu.child", "--help"],
])  # fmt: skip
def test_the_commands_need_no_optional_package(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "gpu.json").write_text(json.dumps(bad_record()))
    module, *rest = [str(tmp_path) if word == "REPORT" else word for word in arguments]
    code = f"sys.argv = {[module, *rest]}; runpy.run_module({module!r}, run_name='__main__')"
    done = run_without_packages(code)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_tests_for_a_device_need_no_optional_package() -> None:
    files = [str(path) for path in (*suites.triton_modules(False), *suites.gpu_modules())]
    code = f"import pytest; sys.exit(pytest.main([*{files}, '--collect-only', '-p', 'no:cacheprovider']))"
    done = run_without_packages(code)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr


def run_without_packages(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", NOTHING_OPTIONAL + code], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_make_runs_the_command_with_the_environment_that_there_is() -> None:
    # Run by another make, as in `make test`, this one would take over its options and announce its directory.
    unset = ("ARGS", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHON")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    for options, python in ((["VENV="], "python3"), (["VENV=nowhere", "PYTHON=python3.12"], "python3.12")):
        done = subprocess.run(
            ["make", "-n", "gpu", *options],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == [python, "-m", "benchmarks", "gpu"]


def test_a_graph_is_another_contender_of_the_same_search() -> None:
    search = contenders.Search(Rival("mine", lambda x, codebook: lambda: (x,)), "bf16")
    assert search.graph.name == "mine, graph"
    assert search.graph.devices == ("cuda",)
