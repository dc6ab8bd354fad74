"""Tests in a process of their own, since a plugin changes what holds for a whole process."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_tests(plugin: str, path: str, *options: str) -> None:
    """Run a file of tests with a plugin, which is loaded before the library. Fails as they do."""
    command = [sys.executable, "-m", "pytest", "-p", plugin, "-p", "no:cacheprovider", *options, path]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr  # not 0 either where nothing was collected
