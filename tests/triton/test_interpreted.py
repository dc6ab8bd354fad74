"""The modules that run kernels, each in a process with TRITON_INTERPRET=1."""

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.triton.interpreter import INTERPRETED

FOLDER = Path(__file__).parent
MODULES = sorted(
    path.name
    for path in FOLDER.glob("test_*.py")
    if not path.name.startswith("test_compiles") and path != Path(__file__)
)


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="would start itself")
@pytest.mark.parametrize("module", MODULES)
def test_passes_in_the_interpreter(module: str, tmp_path: Path) -> None:
    results = tmp_path / "results.xml"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(FOLDER / module), f"--junitxml={results}", "-p", "no:cacheprovider"],
        cwd=FOLDER.parent.parent,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    suite = ElementTree.parse(results).getroot().find("testsuite")
    assert suite is not None
    assert int(suite.attrib["tests"]) > 0
    assert int(suite.attrib["skipped"]) == 0, done.stdout
