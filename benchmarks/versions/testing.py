"""One part of the tests, in the interpreter of an environment."""

import os
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from benchmarks.machine import ROOT
from benchmarks.processes import end
from benchmarks.versions import junit
from benchmarks.versions.parts import Part

LONGEST_ENDING = 300  # characters of the output that say why a process ended
USUAL = (0, 1)  # pytest's codes when all tests passed, and when some failed


def test(part: Part, python: Path, folder: Path, limit_s: float) -> dict[str, Any]:
    """Run the part for at most `limit_s` seconds. Returns the numbers of junit.read, and an "error" that says why
    tests are missing, empty if none is.

    `folder` keeps pytest's output and its results.
    """
    folder.mkdir(parents=True, exist_ok=True)
    results, log = (folder / f"{part.name}.{kind}" for kind in ("xml", "log"))
    results.unlink(missing_ok=True)
    error = _run([str(python), "-m", "pytest", *part.arguments, f"--junitxml={results.absolute()}"], log, limit_s)
    try:
        return {**junit.read(results), "error": error}
    except (OSError, ElementTree.ParseError):
        return {"error": error or "pytest wrote no results"}


def _run(command: list[str], log: Path, limit_s: float) -> str:
    """Return why the process did not run to its end; empty if it did."""
    with log.open("w") as file:
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # so that its own processes, such as torch.compile's, end with it
        )
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return f"stopped after {limit_s / 60:g} minutes"
        finally:
            end(process)
    if process.returncode in USUAL:
        return ""
    ending = junit.PLACES.sub("", log.read_text(errors="replace").strip()[-LONGEST_ENDING:])
    return f"pytest ended with code {process.returncode}: {ending}"
