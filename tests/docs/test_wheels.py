"""Wheels with compiled kernels serve a machine without a compiler; a clone without links says what is wrong."""

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import quantizers

ROOT = Path(__file__).parents[2]
LARGEST = 2 * 10**6  # bytes of a wheel

builds = pytest.mark.long("a build")  # which the job "wheels" of the workflow makes and checks

# What a user without a compiler runs; a hook of the interpreter sees every process that is started.
PROGRAM = """
import sys
processes = []
sys.addaudithook(lambda event, arguments: event in ("subprocess.Popen", "os.posix_spawn", "os.fork", "os.exec")
    and processes.append(arguments))
import torch, quantizers
from quantizers.kernels.common.compiled.library import library
from quantizers.kernels.nearest.operation import nearest_code
torch.manual_seed(0)
x, codebook = torch.randn(1, 300, 24), torch.randn(1, 500, 24)
processes.clear()  # of torch
with quantizers.use_implementation("compiled") as counts:
    found = nearest_code(x, codebook)
with quantizers.use_implementation("reference"):
    expected = nearest_code(x, codebook)
assert dict(counts) == {("nearest_code", "compiled"): 1}, counts
assert torch.equal(found[0], expected[0])  # the indices; a distance is rounded in another order
assert not processes, processes
print(library()._name)
"""


def run(*command: object, cwd: Path = ROOT, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command], env=environment or None, capture_output=True, text=True, cwd=cwd
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel with compiled kernels for this machine, built from a copy: a build leaves files in its folder."""
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        pytest.skip("wheels with compiled kernels are for Linux on x86_64 and aarch64")
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("the cross compiler, the package ziglang, is not installed")
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in ("quantizers", "pyproject.toml", "setup.py", "README.md", "LICENSE"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    option = f"-C--build-option=--plat-name=manylinux_2_17_{platform.machine()}"
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", option, "--outdir", folder, source)
    return next(folder.glob("*.whl"))


@builds
@pytest.mark.slow
def test_name_and_size(wheel: Path) -> None:
    assert (
        wheel.name == f"quantizers_torch-{quantizers.__version__}-py3-none-manylinux_2_17_{platform.machine()}.whl"
    )
    assert wheel.stat().st_size < LARGEST


@builds
@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("auditwheel") is None, reason="auditwheel is not installed")
def test_needs_no_newer_system_than_its_name_says(wheel: Path) -> None:
    report = " ".join(run(sys.executable, "-m", "auditwheel", "show", wheel).split())
    assert f'consistent with the following platform tag: "manylinux_2_17_{platform.machine()}"' in report


@builds
@pytest.mark.slow
def test_computes_without_a_compiler_a_home_or_a_process(wheel: Path, tmp_path: Path) -> None:
    """With each set of vector instructions that this machine has, by the library that is made for it."""
    with zipfile.ZipFile(wheel) as file:
        file.extractall(tmp_path / "site")
    names = set()
    for capability in ("", "avx2", "default"):
        environment = {"PYTHONPATH": str(tmp_path / "site"), "PATH": str(tmp_path / "empty")}
        if capability:
            environment["ATEN_CPU_CAPABILITY"] = capability
        loaded = run(sys.executable, "-c", PROGRAM, cwd=tmp_path, **environment).strip()
        assert Path(loaded).is_relative_to(tmp_path / "site" / "quantizers")
        names.add(loaded)
    assert len(names) >= (2 if platform.machine() == "x86_64" else 1)


def test_a_clone_without_links_says_how_to_clone(tmp_path: Path) -> None:
    """Git for Windows writes a text file, unless it is told to make links."""
    shutil.copytree(ROOT / "quantizers", tmp_path / "quantizers", symlinks=True)
    link = tmp_path / "quantizers" / "kernels"
    text = os.readlink(link)
    link.unlink()
    link.write_text(text)
    ran = subprocess.run([sys.executable, "-c", "import quantizers"], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode
    assert "git clone -c core.symlinks=true" in ran.stderr.splitlines()[-1]
    assert ran.stderr.splitlines()[-1].startswith("ImportError")
