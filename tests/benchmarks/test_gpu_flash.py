"""flash-kmeans as a contender, by a package of its name that computes on a CPU, and without one."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import contenders, flash
from benchmarks.gpu.flash import FLASHES, wrong_by_flash
from benchmarks.kernels.rivals import FLASH, usable

PACKAGE = """
import torch

def euclid_assign_triton(x, centroids, x_sq, out=None, c_sq=None):
    assert x.dtype == centroids.dtype in (torch.float32, torch.bfloat16)
    assert x_sq.dtype == torch.float32 and x_sq.shape == x.shape[:2]
    assert torch.allclose(x_sq, x.float().square().sum(-1))
    return torch.cdist(x.double(), centroids.double()).argmin(-1).int()
"""
ON_CPU = tuple(replace(rival, devices=("cpu",)) for rival in FLASHES)
CPU = torch.device("cpu")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package's only module, on the path."""
    folder = tmp_path / "flash_kmeans"
    folder.mkdir()
    (folder / "__init__.py").touch()
    module = folder / "assign_euclid_triton.py"
    module.write_text(PACKAGE)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for name in [name for name in sys.modules if name.partition(".")[0] == "flash_kmeans"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(flash, "FLASHES", ON_CPU)
    return module


@pytest.fixture(autouse=True)
def forget() -> object:
    """Let no later test import the package of this one."""
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "flash_kmeans"]:
        del sys.modules[name]


@pytest.mark.usefixtures("package")
def test_both_dtypes_search() -> None:
    x, codebook = torch.randn(100, 8), torch.randn(30, 8)
    rivals, left_out = usable(ON_CPU, CPU)
    assert (rivals, left_out) == (list(ON_CPU), [])
    exact = torch.cdist(x.double(), codebook.double()).argmin(-1)
    whole, half = (rival.prepare(x, codebook)()[0] for rival in rivals)
    assert torch.equal(whole.long(), exact)
    assert (half.long() == exact).float().mean() > 0.9
    assert wrong_by_flash(x, codebook, slice(0, 40)) == ({FLASH: 0.0}, {})


def test_a_package_that_fails_is_a_reason(package: Path) -> None:
    package.write_text("raise ImportError('no tqdm')")
    assert wrong_by_flash(torch.randn(9, 4), torch.randn(3, 4), slice(0, 9)) == ({}, {FLASH: "no tqdm"})


def test_without_the_package_it_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(flash, "FLASHES", ON_CPU)
    assert usable(ON_CPU, CPU)[0] == []
    assert wrong_by_flash(torch.randn(9, 4), torch.randn(3, 4), slice(0, 9)) == ({}, {})


def test_it_is_timed_in_both_dtypes_and_as_graphs() -> None:
    names = {rival.name for rival in contenders.SEARCHED if rival.name.startswith(FLASH)}
    assert names == {FLASH, f"{FLASH}, bf16", f"{FLASH}, graph", f"{FLASH}, bf16, graph"}
