"""The command `versions`: what is read, kept and shown. Nothing is installed here."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from benchmarks.cli.versions import app
from benchmarks.errors import InputError
from benchmarks.machine import ROOT
from benchmarks.versions import environments, junit, report, run, stored
from benchmarks.versions.environments import EnvironmentFailure, missing, parse_interpreters
from benchmarks.versions.parts import PARTS, REQUIREMENTS, Part
from benchmarks.versions.run import REPORT, Matrix, Settings
from benchmarks.versions.sets import SETS, choose, pinned
from benchmarks.versions.testing import test as run_tests

OUTCOMES = ("passed", "failed", "skipped")
NUMBERS = {"passed": 3, "failed": 0, "skipped": 0, "seconds": 1.0, "failures": [], "skips": {}, "error": ""}


# -- the lists


def test_the_requirements_are_those_of_the_extra() -> None:
    extra = re.search(r"^test = \[\n(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.M | re.S)
    assert extra
    assert set(REQUIREMENTS) <= set(re.findall(r'"([^"]+)"', extra[1]))


def test_one_set_is_what_the_other_tests_run_with() -> None:
    pins = pinned()
    assert {"torch", "numpy", "triton"} <= set(pins)
    assert [each.pins for each in SETS].count({name: pins[name] for name in ("torch", "numpy", "triton")}) == 1


def test_the_oldest_set_is_the_floor_of_the_package() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    for name in ("torch", "numpy"):
        floor = re.search(rf'"{name}>=([\d.]+)"', project)
        assert floor
        assert getattr(SETS[0], name).startswith(f"{floor[1]}."), f"the oldest set has another {name}"
    assert f'requires-python = ">={SETS[0].python}"' in project


def test_every_part_is_there_and_no_test_is_in_two() -> None:
    paths = [path for part in PARTS for path in part.paths]
    assert all((ROOT / "tests" / path).exists() for path in paths)
    assert len(set(paths)) == len(paths)


def test_unknown_names_are_answered_with_the_known() -> None:
    with pytest.raises(InputError, match=r"--sets: got '1.0'; expected releases of torch among 2.4.1, "):
        choose(["1.0"])
    with pytest.raises(InputError, match=r"--python: got '3.10'; expected a release and its interpreter"):
        parse_interpreters(["3.10"])
    ended = CliRunner().invoke(app, ["versions", "--parts", "all"])
    assert ended.exit_code == 2
    assert "--parts: got 'all'; expected one of contract, " in ended.output


# -- environments


def test_nothing_is_installed_where_all_is_right() -> None:
    target = SETS[0]
    found = {**target.pins, "torch": f"{target.torch}+cpu"}  # builds for the CPU count
    found |= {requirement.partition(">=")[0]: "1" for requirement in REQUIREMENTS}
    assert missing(target, found) == []
    for name in set(found) - ({"triton"} if not environments.has_triton() else set()):
        without = {other: release for other, release in found.items() if other != name}
        assert f"torch=={target.torch}" in missing(target, without)
    assert missing(target, {**found, "torch": f"{target.torch}0"})


def test_a_missing_interpreter_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "installed", lambda python: {})
    with pytest.raises(EnvironmentFailure, match=r"Python 3\.10: /nowhere does not run; name an interpreter by"):
        environments.prepare(SETS[0], tmp_path, {"3.10": "/nowhere"}, tmp_path / "log")


def test_the_end_of_what_pip_says_is_told(tmp_path: Path) -> None:
    failing = [sys.executable, "-c", "import sys; print('no such release'); sys.exit(3)"]
    with pytest.raises(EnvironmentFailure, match=r"ended with code 3: no such release"):
        environments._call(failing, tmp_path / "log")


# -- results of pytest


@given(outcomes=st.lists(st.sampled_from([*OUTCOMES, "error"])))
def test_every_outcome_is_counted_once(outcomes: list[str], tmp_path: Path) -> None:
    suite = ElementTree.Element("testsuite")
    for number, outcome in enumerate(outcomes):
        case = ElementTree.SubElement(suite, "testcase", classname="tests.a", name=f"test_{number}", time="0.5")
        if outcome != "passed":
            tag = "failure" if outcome == "failed" else outcome
            ElementTree.SubElement(case, tag, message=f"{ROOT}/tests/a.py is {outcome}\nand more")
    ElementTree.ElementTree(suite).write(tmp_path / "results.xml")
    found = junit.read(tmp_path / "results.xml")
    wrong = [number for number, outcome in enumerate(outcomes) if outcome in ("failed", "error")]
    assert sum(found[outcome] for outcome in OUTCOMES) == len(outcomes)
    assert found["failed"] == len(wrong)
    assert [each["test"] for each in found["failures"]] == [f"tests.a::test_{number}" for number in wrong][:40]
    assert found["skips"] == ({"tests/a.py is skipped": n} if (n := outcomes.count("skipped")) else {})
    assert found["seconds"] == 0.5 * len(outcomes)


@pytest.fixture
def part_of(tmp_path: Path) -> Callable[[str], Part]:
    """Writes a module of tests, and returns a part that runs it."""

    def write(source: str) -> Part:
        (tmp_path / "conftest.py").write_text(
            "from hypothesis import settings\nsettings.register_profile('quick', max_examples=1)\n"
        )
        (tmp_path / "test_written.py").write_text(source)
        return Part("written", (os.path.relpath(tmp_path / "test_written.py", ROOT / "tests"),))

    return write


def test_a_part_is_run_and_counted(part_of: Callable[[str], Part], tmp_path: Path) -> None:
    part = part_of(
        "import pytest\ndef test_a(): pass\ndef test_b(): assert 0, 'wrong'\n"
        "@pytest.mark.skip(reason='old')\ndef test_c(): pass\n"
    )
    found = run_tests(part, Path(sys.executable), tmp_path / "out", 60)
    assert [found[outcome] for outcome in (*OUTCOMES, "error", "skips")] == [1, 1, 1, "", {"old": 1}]


@pytest.mark.long("an end-to-end run")
def test_what_was_found_before_the_limit_is_kept(part_of: Callable[[str], Part], tmp_path: Path) -> None:
    part = part_of("import time\ndef test_a(): pass\ndef test_b(): time.sleep(600)\n")
    found = run_tests(part, Path(sys.executable), tmp_path / "out", 12)
    assert found["error"] == "stopped after 0.2 minutes"
    assert found["passed"] == 1


def test_a_process_that_dies_is_an_error(part_of: Callable[[str], Part], tmp_path: Path) -> None:
    found = run_tests(
        part_of("import os\ndef test_a(): os._exit(7)\n"), Path(sys.executable), tmp_path / "out", 60
    )
    assert found["error"].startswith("pytest ended with code 7")
    assert "passed" not in found


# -- what is kept, and what runs again


class Tried:
    """Stands in for environments and tests: records the parts that run, some of which end with an error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, errors: set[tuple[str, str]] = frozenset()) -> None:
        self.ran: list[tuple[str, str]] = []
        self.errors = errors
        self.without_environment: set[str] = set()
        monkeypatch.setattr(run, "prepare", self._prepare)
        monkeypatch.setattr(run, "installed", lambda python: {"torch": python.name})
        monkeypatch.setattr(run, "test", self._test)

    def _prepare(self, target: Any, *rest: Any) -> Path:
        if target.torch in self.without_environment:
            raise EnvironmentFailure("no such release")
        return Path(target.torch)

    def _test(self, part: Part, python: Path, *rest: Any) -> dict[str, Any]:
        self.ran.append((python.name, part.name))
        return {**NUMBERS, "error": "stopped" if self.ran[-1] in self.errors else ""}


def finish(settings: Settings) -> dict[str, Any]:
    """Run a matrix, writing its report after each part as the command does."""

    def write(entry: dict[str, Any]) -> None:
        (settings.out / REPORT).write_text(json.dumps(report.full_record(matrix)))

    matrix = Matrix(settings, lambda name: None, write)
    matrix.run()
    return report.full_record(matrix)


ALL = [(target.torch, part.name) for target in SETS for part in PARTS]


@pytest.mark.long("an end-to-end run")
@given(errors=st.sets(st.sampled_from(ALL)))
def test_what_did_not_end_runs_again_and_nothing_else(
    errors: set[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings = Settings(out := tmp_path_factory.mktemp("out"), out)
    with pytest.MonkeyPatch.context() as patch:
        first = Tried(patch, errors)
        finish(settings)
        second = Tried(patch)
        record = finish(settings)
    assert first.ran == ALL
    assert second.ran == [each for each in ALL if each in errors]
    assert not report.has_failed(record)
    assert [entry["name"] for entry in record["sets"]] == [target.name for target in SETS]
    assert all({part["part"] for part in entry["parts"]} == {p.name for p in PARTS} for entry in record["sets"])


@given(changed=st.sets(st.sampled_from(PARTS)))
def test_a_part_whose_sources_have_changed_runs_again(
    changed: set[Part], tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings = Settings(out := tmp_path_factory.mktemp("out"), out, SETS[:1])
    real = stored.sources
    with pytest.MonkeyPatch.context() as patch:
        tried = Tried(patch)
        finish(settings)
        patch.setattr(stored, "sources", lambda part: "others" if part in changed else real(part))
        tried.ran.clear()
        finish(settings)
    assert [name for _, name in tried.ran] == [part.name for part in PARTS if part in changed]


def test_the_sources_of_a_part_are_the_library_and_its_own_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [f"tests/{part.paths[0]}" for part in PARTS if not part.paths[0].endswith(".py")]
    others = ("pyproject.toml", "benchmarks/versions/parts.py", "quantizers/a.py")
    for name in (*others, *(f"{folder}/a.py" for folder in files)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    monkeypatch.setattr(stored, "ROOT", tmp_path)
    folders = [part for part in PARTS if f"tests/{part.paths[0]}" in files]

    def changed_by(name: str) -> list[Part]:
        before = [stored.sources(part) for part in folders]
        (tmp_path / name).write_text("another")
        return [part for part, old in zip(folders, before, strict=True) if stored.sources(part) != old]

    assert changed_by("quantizers/a.py") == folders
    assert changed_by(f"{files[1]}/a.py") == folders[1:2]


def test_a_damaged_report_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Tried(monkeypatch)
    finish(Settings(tmp_path, tmp_path, SETS[:1]))
    assert stored.load(tmp_path / REPORT)
    (tmp_path / REPORT).write_text((tmp_path / REPORT).read_text()[:-20])
    assert not stored.load(tmp_path / REPORT)


def test_fresh_runs_the_chosen_parts_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = Tried(monkeypatch)
    finish(Settings(tmp_path, tmp_path, SETS[:1]))
    tried.ran.clear()
    record = finish(Settings(tmp_path, tmp_path, SETS[:1], PARTS[:2], fresh=True))
    assert [name for _, name in tried.ran] == [part.name for part in PARTS[:2]]
    assert len(record["sets"][0]["parts"]) == len(PARTS)


def test_a_set_without_environment_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = Tried(monkeypatch)
    tried.without_environment = {SETS[0].torch}
    record = finish(Settings(tmp_path, tmp_path))
    assert tried.ran == [each for each in ALL if each[0] != SETS[0].torch]
    assert report.has_failed(record)
    assert report.notes(record) == [f"torch {SETS[0].torch}: no environment: no such release"]


def test_an_interruption_keeps_what_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = Tried(monkeypatch)
    real = tried._test

    def interrupted(part: Part, *rest: Any) -> dict[str, Any]:
        if part is PARTS[2]:
            raise KeyboardInterrupt
        return real(part, *rest)

    monkeypatch.setattr(run, "test", interrupted)
    assert finish(Settings(tmp_path, tmp_path, SETS[:1]))["interrupted"]
    again = Tried(monkeypatch)
    finish(Settings(tmp_path, tmp_path, SETS[:1]))
    assert [name for _, name in again.ran] == [part.name for part in PARTS[2:]]


# -- the tables


def test_the_tables_show_what_failed_was_skipped_and_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Tried(monkeypatch)
    record = finish(Settings(tmp_path, tmp_path, SETS[:2], PARTS[:3]))
    kernels, contract = record["sets"][0]["parts"][1], record["sets"][0]["parts"][0]
    contract.update(failed=2, failures=[{"test": "tests.a::test_b", "message": "wrong"}])
    kernels.update(skipped=4, skips={"no vmap": 4}, error="stopped after 1 minutes")
    results, skipped = report.sheets(record)
    cells = {row[0]: row[1:] for row in results.rows}
    assert cells["contract"] == ["3, 2 failed", "3"]
    assert cells["kernels"] == ["3*, 4 skipped", "3"]
    assert cells[PARTS[-1].name] == ["-", "-"]
    assert skipped.rows == [["no vmap", "4", "0"]]
    assert report.has_failed(record)
    assert report.notes(record) == [
        f"torch {SETS[0].torch}: tests.a::test_b: wrong",
        f"torch {SETS[0].torch}: kernels*: stopped after 1 minutes",
    ]


def test_the_command_needs_neither_torch_nor_numpy() -> None:
    """It also runs where nothing is installed yet."""
    program = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'numpy', 'quantizers')));"
        "from benchmarks.cli.versions import app; print('imported')"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "imported\n", done.stderr
