"""The contract in a process without Triton and without a compiler (plain_process.py)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["output", "state", "missing"])
def test_the_contract_without_triton_and_compiler(name: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.devices.plain_process", "-p", "no:cacheprovider"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    finished = subprocess.run(
        [*command, "--hypothesis-profile=brief", f"tests/contract/test_{name}.py"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert " passed" in finished.stdout or "[100%]" in finished.stdout
