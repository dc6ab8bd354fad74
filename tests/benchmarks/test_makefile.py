"""What the Makefile installs for a command."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
GROUPS = ("bench", "peers", "tests")


def planned(target: str, folder: Path) -> str:
    """The commands that `make` would run."""
    command = ["make", "--dry-run", target, f"VENV={folder}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def extras(commands: str) -> set[str]:
    """The extras that pip would install; none if it would not run."""
    found = re.search(r"--editable '\.\[([\w,]+)\]'", commands)
    return set(found[1].split(",")) if found else set()


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("bench", {"bench"}),
        ("sweep", {"bench"}),
        ("kernels", {"bench", "codec", "peers"}),
        ("test", {"bench", "codec", "dev", "docs", "models", "peers", "test"}),
    ],
)
def test_a_command_installs_what_it_needs(target: str, expected: set[str], tmp_path: Path) -> None:
    assert extras(planned(target, tmp_path)) == expected


@pytest.mark.parametrize("group", GROUPS)
def test_a_larger_group_serves_smaller_ones(group: str, tmp_path: Path) -> None:
    installed = GROUPS[: GROUPS.index(group) + 1]
    target = {"bench": "bench", "peers": "kernels", "tests": "test"}[group]
    touched = re.search(r"^touch (.*)$", planned(target, tmp_path), re.M)
    assert touched
    assert set(touched[1].split()) == {f"{tmp_path}/.installed-{each}" for each in installed}
    for path in map(Path, touched[1].split()):
        path.touch()
    assert not extras(planned("bench", tmp_path))
    assert bool(extras(planned("test", tmp_path))) == (group != "tests")


def test_changed_requirements_are_installed(tmp_path: Path) -> None:
    (tmp_path / ".installed-bench").touch()
    os.utime(tmp_path / ".installed-bench", (0, 0))
    assert extras(planned("bench", tmp_path)) == {"bench"}
