"""The tests that run kernels on the device, shared by processes of their own without pytest-xdist.

Tests that compile ahead of time or start Triton's interpreter are left out: they say nothing about this device.
"""

import os
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.gpu.stages import Numbers, Phase, Place
from benchmarks.machine import ROOT

TESTS = ROOT / "tests"
TRITON = TESTS / "triton"
NEITHER = ("test_compiles_*.py", "test_interpreted.py")
INTERPRETED = "test_rotation.py"  # the quickest module, in the interpreter
MARKED, EXPRESSION = "pytest.mark.gpu", "gpu and not long"
LONGEST_MESSAGE = 300  # characters
MOST_KINDS = 20  # of failures by message

TRITON_TESTS, GPU_TESTS = "tests/triton", f'-m "{EXPRESSION}"'


class Share:
    """A plugin that keeps every n-th of the collected tests, from the i-th on."""

    def __init__(self, i: int, n: int) -> None:
        self.i, self.n = i, n

    @pytest.hookimpl(trylast=True)  # after tests/conftest.py has sorted them, and pytest has deselected by marks
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        config.hook.pytest_deselected(items=[item for k, item in enumerate(items) if k % self.n != self.i])
        items[:] = items[self.i :: self.n]


def phases(interpreted: bool, workers: int) -> list[Phase]:
    n = 2 if interpreted else workers
    sets = (TRITON_TESTS,) if interpreted else (TRITON_TESTS, GPU_TESTS)
    return [Phase(tuple(f"{name}, {i + 1} of {n}" for i in range(n)), n) for name in sets]


def run(part: str, place: Place) -> Numbers:
    """Run one share of the tests. Returns how many ran, how many failed, and each kind of failure."""
    name, _, share = part.rpartition(", ")
    i, n = map(int, share.split(" of "))
    results = place.out / "processes" / f"tests-{'gpu' if name == GPU_TESTS else 'triton'}-{i}.xml"
    results.unlink(missing_ok=True)
    options = [f"--junitxml={results}", "-p", "no:cacheprovider", "--tb=short", "--rootdir", str(ROOT)]
    if name == GPU_TESTS:
        options += ["-m", EXPRESSION]
    files = gpu_modules() if name == GPU_TESTS else triton_modules(place.interpreted)
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # for the deterministic algorithms that all tests select
    code = pytest.main([*map(str, files), *options], plugins=[Share(i - 1, n)])
    if not results.exists():
        raise RuntimeError(f"pytest ended with code {int(code)} and wrote no results")
    return {"stopped": code == pytest.ExitCode.INTERRUPTED, **read_results(results)}


def triton_modules(interpreted: bool) -> list[Path]:
    """Return the modules that run kernels; one of them in the interpreter."""
    left_out = {path for pattern in NEITHER for path in TRITON.glob(pattern)}
    return [TRITON / INTERPRETED] if interpreted else sorted(set(TRITON.glob("test_*.py")) - left_out)


def gpu_modules() -> list[Path]:
    """Return the other modules with a test marked "gpu": importing all would need packages of other tests."""
    paths = sorted(path for path in TESTS.rglob("test_*.py") if path.parent != TRITON)
    return [path for path in paths if MARKED in path.read_text()]


def read_results(path: Path) -> Numbers:
    """Return the numbers of a JUnit file: cases, skipped, failed; and for each first line of a message how often
    it occurred, in which test first, and more of it.
    """
    cases = list(ElementTree.parse(path).getroot().iter("testcase"))
    kinds: dict[str, dict[str, object]] = {}
    failed = 0
    for case in cases:
        for outcome in case:
            if outcome.tag not in ("failure", "error"):
                continue
            failed += 1
            message = outcome.attrib.get("message") or (outcome.text or "").strip()
            kind = kinds.setdefault(
                (message.splitlines() or [""])[0][:LONGEST_MESSAGE],
                {"times": 0, "first": f"{case.attrib['classname']}::{case.attrib['name']}", "message": message},
            )
            kind["times"] = int(str(kind["times"])) + 1
            kind["message"] = str(kind["message"])[:LONGEST_MESSAGE]
    most = sorted(kinds.items(), key=lambda item: -int(str(item[1]["times"])))[:MOST_KINDS]
    return {
        "cases": len(cases),
        "skipped": sum(outcome.tag == "skipped" for case in cases for outcome in case),
        "failed": failed,
        "failures": [{"error": error, **kind} for error, kind in most],
    }
