"""The same through torchrun itself, by the environment that it sets."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.distributed.under_torchrun import HERE

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_script_under_torchrun() -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launcher, "-m", "tests.distributed.under_torchrun"],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"{len(HERE)} quantizers, 2 ranks, 2 steps" in done.stdout
