"""The workflow runs the Makefile's commands, on the releases that the package promises."""

import re
import shlex
import subprocess
from typing import Any

import pytest
import yaml

from benchmarks.__main__ import VERSIONS
from benchmarks.versions.sets import SETS
from tests.docs.packages import ROOT

TEXT = (ROOT / ".github" / "workflows" / "tests.yml").read_text()
JOBS: dict[str, Any] = yaml.safe_load(TEXT)["jobs"]
PROJECT = (ROOT / "pyproject.toml").read_text()
MATRIX = JOBS["versions"]["strategy"]["matrix"]["include"]


def commands(job: str) -> list[str]:
    return [step["run"] for step in JOBS[job]["steps"] if "run" in step]


MADE = [(job, command) for job in JOBS for command in commands(job) if command.startswith("make ")]


def test_every_job_makes_what_it_is_named_after() -> None:
    assert {job: shlex.split(command)[1] for job, command in MADE} == {job: job for job in JOBS}


@pytest.mark.parametrize(("job", "command"), MADE)
def test_the_makefile_knows_what_is_made(job: str, command: str) -> None:
    written = re.sub(r"\$\{\{ matrix\.(\w+) \}\}", lambda found: MATRIX[0][found[1]], command)
    name, *arguments = shlex.split(written)
    done = subprocess.run([name, "--dry-run", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_versions_are_those_of_the_list() -> None:
    assert [{"torch": each.torch, "python": each.python} for each in SETS] == MATRIX


def test_every_python_of_the_package_is_tested() -> None:
    classified = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PROJECT)
    assert classified
    assert sorted({each.python for each in SETS}) == sorted(classified)
    assert f'requires-python = ">={min(classified, key=lambda release: int(release[2:]))}"' in PROJECT


def test_the_pinned_releases_are_tested_with_their_python() -> None:
    (usual,) = {each.python for each in SETS if f"torch=={each.torch}\n" in (ROOT / "constraints.txt").read_text()}
    for job in ("lint", "test", "wheels"):
        (given,) = [step["with"]["python-version"] for step in JOBS[job]["steps"] if "setup-python" in str(step)]
        assert given == usual


def test_the_command_versions_gets_what_it_imports() -> None:
    install = next(command for command in commands("versions") if "pip install" in command)
    assert set(shlex.split(install)[4:]) == set(VERSIONS.required.values())


def test_actions_are_pinned_by_major_version_and_no_index_is_named() -> None:
    used = [step["uses"] for job in JOBS.values() for step in job["steps"] if "uses" in step]
    assert used
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+", action) for action in used)
    assert "://" not in TEXT


def test_every_job_ends_by_itself() -> None:
    for name, job in JOBS.items():
        assert job["timeout-minutes"] <= (360 if name == "fuzz" else 120)  # a runner of GitHub ends after 360
