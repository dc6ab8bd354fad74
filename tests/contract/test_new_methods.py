"""A new method passes the suite by registration alone: tried with three methods that no test names.

This runs the contract and the tests of state on them. tests/README.md has the command that runs every test.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = ("trial_balanced", "trial_cosine", "trial_noisy")


@pytest.mark.slow
def test_a_registered_method_passes_with_no_test_edited() -> None:
    """In a process of its own, for a name once registered stays."""
    command = [sys.executable, "-m", "pytest", "-p", "tests.trial_methods", "-p", "no:cacheprovider", "-vv"]
    folders = ["tests/contract", "tests/state", "tests/core/test_inputs.py"]
    done = subprocess.run(
        [*command, *folders, "-k", " or ".join(NAMES)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for name in NAMES:
        passed = re.findall(rf"^tests/contract/\S+\[.*{name}.*\] PASSED", done.stdout, re.M)
        assert len(passed) > 40, f"{len(passed)} tests ran on {name}"
