"""A PyTorch that is too old is named in a sentence, before anything in it is missed."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quantizers.minimum_torch import MINIMUM, check

NUMBERS = st.integers(0, 40)
SUFFIXES = st.sampled_from([".0", ".1+cpu", ".0a0+gitabcdef", ".0.dev20260101+cu130"])


@given(st.tuples(NUMBERS, NUMBERS), SUFFIXES)
def test_an_old_version_raises(numbers: tuple[int, int], suffix: str) -> None:
    version = f"{numbers[0]}.{numbers[1]}{suffix}"
    if numbers >= MINIMUM:
        check(version)
        return
    with pytest.raises(ImportError) as error:
        check(version)
    assert f"needs torch {MINIMUM[0]}.{MINIMUM[1]} or newer; this is {version}." in str(error.value)


def test_the_tests_run_with_a_version_that_is_new_enough() -> None:
    check(torch.__version__)


def test_the_import_stops_before_it_uses_an_old_version() -> None:
    """The stand-in for torch has a version and nothing else."""
    program = (
        "import sys, types\n"
        "sys.modules['torch'] = types.ModuleType('torch')\n"
        "sys.modules['torch'].__version__ = '2.3.1'\n"
        "import quantizers\n"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert process.returncode == 1
    assert process.stderr.splitlines()[-1].startswith(
        f"ImportError: quantizers-torch needs torch {MINIMUM[0]}.{MINIMUM[1]} or newer; this is 2.3.1."
    )
