"""A virtual environment for each set of releases, kept between runs."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.errors import InputError
from benchmarks.versions.parts import REQUIREMENTS
from benchmarks.versions.sets import VersionSet

PROBE = (
    "import json, platform, sys\n"
    "from importlib import metadata\n"
    "found = {'python': platform.python_version()}\n"
    "for name in sys.argv[1:]:\n"
    "    try:\n"
    "        found[name] = metadata.version(name)\n"
    "    except metadata.PackageNotFoundError:\n"
    "        pass\n"
    "print(json.dumps(found))\n"
)
PROBE_S, INSTALL_S = 60, 3600  # seconds after which a process is given up
LONGEST_ENDING = 300  # characters of pip's output that say why it failed


class EnvironmentFailure(Exception):
    """The environment of a set cannot be made. The text says why."""


def parse_interpreters(given: Sequence[str]) -> dict[str, str]:
    """Return the interpreter of each minor release from texts such as "3.10=/path". Raises: InputError."""
    pairs = [text.partition("=") for text in given]
    for text, (release, _, path) in zip(given, pairs, strict=True):
        if not (release and path):
            raise InputError(f"--python: got {text!r}; expected a release and its interpreter: 3.10=/path/python")
    return {release: path for release, _, path in pairs}


def prepare(target: VersionSet, folder: Path, interpreters: Mapping[str, str], log: Path) -> Path:
    """Return the interpreter of the set's environment in `folder`; create it, and install what is missing.

    Raises: EnvironmentFailure.
    """
    place = folder.absolute() / target.name
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        _call([_interpreter(target.python, interpreters), "-m", "venv", str(place)], log)
    found = installed(python)
    if not found.get("python", "").startswith(f"{target.python}."):
        raise EnvironmentFailure(f"{place} has Python {found.get('python', 'that does not run')}; delete it")
    if requirements := missing(target, found):
        _call([str(python), "-m", "pip", "install", *requirements], log)
    return python


def installed(python: Path | str) -> dict[str, str]:
    """Return the releases of Python, torch, numpy, triton and REQUIREMENTS; nothing if `python` does not run."""
    try:
        done = subprocess.run(
            [str(python), "-c", PROBE, "torch", "numpy", "triton", *map(_name, REQUIREMENTS)],
            capture_output=True,
            text=True,
            check=True,
            timeout=PROBE_S,
        )
        found: dict[str, str] = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return {}
    return found


def missing(target: VersionSet, found: Mapping[str, str]) -> list[str]:
    """Return the requirements to install: all if any is missing or has another release, otherwise none.

    All, since pip would otherwise change a release that is right already.
    """
    pins = {name: release for name, release in target.pins.items() if name != "triton" or has_triton()}
    right = all(found.get(name, "").partition("+")[0] == release for name, release in pins.items())
    if right and all(_name(requirement) in found for requirement in REQUIREMENTS):
        return []
    return [*(f"{name}=={release}" for name, release in pins.items()), *REQUIREMENTS]


def has_triton() -> bool:
    return platform.system() == "Linux"


def _interpreter(release: str, interpreters: Mapping[str, str]) -> str:
    candidates = [interpreters[release]] if release in interpreters else [f"python{release}", sys.executable]
    for candidate in candidates:
        if installed(candidate).get("python", "").startswith(f"{release}."):
            return candidate
    raise EnvironmentFailure(
        f"Python {release}: {candidates[0]} does not run; name an interpreter by --python {release}=PATH"
    )


def _name(requirement: str) -> str:
    return requirement.partition(">=")[0]


def _call(command: Sequence[str], log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        try:
            done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, timeout=INSTALL_S)
        except (OSError, subprocess.SubprocessError) as error:
            raise EnvironmentFailure(f"{' '.join(command[1:4])}: {error}") from error
    if done.returncode:
        ending = log.read_text(errors="replace").strip()[-LONGEST_ENDING:]
        raise EnvironmentFailure(f"{' '.join(command[1:4])} ended with code {done.returncode}: {ending}")
