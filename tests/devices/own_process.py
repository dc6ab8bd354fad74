"""Tests in a process of their own, since a plugin changes what holds for a whole process."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_tests(plugin: str, *arguments: str) -> None:
    """Run pytest with a plugin, which is loaded before the library, and other arguments. Fails as it does."""
    command = [sys.executable, "-m", "pytest", "-p", plugin, "-p", "no:cacheprovider", *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr  # not 0 either where nothing was collected
