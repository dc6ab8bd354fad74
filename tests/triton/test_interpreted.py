"""The modules that run kernels, in processes with TRITON_INTERPRET=1: few, since each takes seconds to start."""

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from quantizers.kernels.common.dispatch import interpreter_obstacle
from tests.triton.interpreter import INTERPRETED, QUICK_VARIABLE

FOLDER = Path(__file__).parent
MODULES = sorted(
    path
    for path in FOLDER.glob("test_*.py")
    if not path.name.startswith("test_compiles") and path != Path(__file__)
)
LONGEST = [FOLDER / "test_nearest.py", FOLDER / "test_certificate.py"]  # each takes as long as many others
# Minutes in the interpreter: `make test` runs these kernels once each, in tests/benchmarks/test_gpu.py.
PRUNED = [FOLDER / f"test_{name}.py" for name in ("pruned", "pruned_leaves", "tuning")]
OTHERS = [path for path in MODULES if path not in (*LONGEST, *PRUNED)]
PARTS = [
    *(pytest.param([path], id=path.stem) for path in LONGEST),
    pytest.param(PRUNED, id="pruned", marks=pytest.mark.long("minutes in Triton's interpreter")),
    pytest.param(OTHERS, id="the rest"),
]


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(INTERPRETED, reason="would start itself"),
    pytest.mark.skipif(bool(interpreter_obstacle()), reason=interpreter_obstacle()),
]


def run(modules: list[Path], results: Path, *options: str, **variables: str) -> ElementTree.Element:
    """Run modules in a process of their own, all of whose tests must pass; return its results."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *modules, *options, f"--junitxml={results}", "-p", "no:cacheprovider"],
        cwd=FOLDER.parent.parent,
        env={**os.environ, "TRITON_INTERPRET": "1", **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    suite = ElementTree.parse(results).getroot().find("testsuite")
    assert suite is not None
    assert int(suite.attrib["skipped"]) == 0, done.stdout
    return suite


@pytest.mark.parametrize("modules", PARTS)
def test_passes_in_the_interpreter(
    modules: list[Path], tmp_path: Path, effort: list[str], pytestconfig: pytest.Config
) -> None:
    """In `make test` a share of the cases and three examples of each law, in larger programs."""
    variables = {}
    if pytestconfig.option.share > 1:
        effort = [*effort, "--hypothesis-profile=fewest"]
        variables = {QUICK_VARIABLE: "1"}
    suite = run(modules, tmp_path / "results.xml", *effort, **variables)
    names = {case.attrib["classname"].rpartition(".")[2] for case in suite.iter("testcase")}
    assert names == {module.stem for module in modules}


@pytest.mark.long
def test_every_other_quantizer_passes_in_the_interpreter(tmp_path: Path) -> None:
    """Those that `make test` leaves out: none of them reads a value back, either."""
    suite = run([FOLDER / "test_modules.py"], tmp_path / "results.xml", "-m", "long")
    assert int(suite.attrib["tests"]) > 40
