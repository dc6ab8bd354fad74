"""Programs that measure something in a process of their own, and print it as JSON in their last line."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def printed(program: str, environment: Mapping[str, str], folder: Path | None = None) -> Any:
    """Run a Python program in a folder, by default the current one; return what its last line says.

    Raises: CalledProcessError if it fails.
    """
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=folder)
    return json.loads(done.stdout.splitlines()[-1])
