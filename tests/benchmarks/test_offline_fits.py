"""What the offline benchmark compares, and how it judges a codebook."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.machine import ROOT
from benchmarks.offline import child, patches, stored
from benchmarks.offline.cells import KMEANS, PRODUCT, RESIDUAL, STREAM, Cell
from benchmarks.offline.contenders import BY_NAME, CONTENDERS, Contender
from benchmarks.offline.processes import inertia
from benchmarks.offline.summary import SAME
from benchmarks.offline.tasks import Fitted, Task

CELL = Cell(KMEANS, "patches", 300, 64, 4)


def test_names_are_different_also_as_files() -> None:
    assert len(BY_NAME) == len(CONTENDERS)
    assert len({stored._path(Path(), CELL, name, 0) for name in BY_NAME}) == len(CONTENDERS)


def test_the_processes_of_others_import_neither_torch_nor_each_other() -> None:
    modules = ("child", "faiss_fits", "sklearn_fits")
    imports = ", ".join(f"benchmarks.offline.{module}" for module in modules)
    code = f"import sys, {imports}; print({{'torch', 'faiss', 'sklearn', 'quantizers'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_elkan_is_left_out_where_its_bounds_are_large() -> None:
    elkan = BY_NAME["scikit-learn elkan"]
    assert elkan.fits(CELL)
    assert not elkan.fits(replace(CELL, n=10**6, k=1024))
    assert not elkan.fits(replace(CELL, kind=STREAM))


TINY = {
    KMEANS: CELL,
    STREAM: replace(CELL, kind=STREAM),
    RESIDUAL: Cell(RESIDUAL, "patches", 300, 64, 4, codebooks=2),
    PRODUCT: Cell(PRODUCT, "patches", 300, 64, 4, codebooks=2),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("contender", CONTENDERS, ids=lambda contender: contender.name)
def test_every_contender_explains_some_of_the_variance(contender: Contender, tmp_path: Path) -> None:
    (x,) = patches.blocks(300, 64)
    np.save(tmp_path / "x.npy", x)
    x = np.load(tmp_path / "x.npy", mmap_mode="r" if contender.kind == STREAM else None)
    seeds = np.array(x[:4]) if contender.from_seeds else None
    task = Task(TINY[contender.kind], str(tmp_path / "x.npy"), 3, seeds, seed=0, threads=1)
    fitted = contender.load()(x, task)
    if contender.kind in (RESIDUAL, PRODUCT):
        assert fitted.codes is None
        error = child.distortion(x, fitted)
    else:
        assert fitted.codes is not None
        assert fitted.codes.shape == (4, 64)
        error = inertia(x, fitted.codes)
    variance = float(np.square(x - x.mean(0, dtype=np.float64)).sum(1).mean())
    assert error < 0.9 * variance
    assert fitted.instructions
    for seconds, during in fitted.inertias:
        assert seconds > 0
        assert during >= error * (1 - 1e-4)  # k-means does not get worse; sums of float32 round


def test_the_same_seeds_lead_to_the_same_inertia(tmp_path: Path) -> None:
    (x,) = patches.blocks(300, 64)
    task = Task(CELL, "", 3, x[:4].copy(), seed=0, threads=1)
    found = {c.name: c.load()(x, task) for c in CONTENDERS if c.from_seeds and c.package != "sklearn"}
    values = [inertia(x, fitted.codes) for fitted in found.values() if fitted.codes is not None]
    assert max(values) <= (1 + SAME) * min(values)


@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 99))
def test_inertia_is_the_mean_of_the_least_squared_distances(n: int, k: int, seed: int) -> None:
    draws = np.random.default_rng(seed)
    x, codes = (draws.standard_normal((rows, 3)).astype(np.float32) for rows in (n, k))
    squared = np.square(x[:, None].astype(np.float64) - codes).sum(-1)
    np.testing.assert_allclose(inertia(x, codes), squared.min(1).mean(), rtol=1e-6)  # another of two equal codes
    fitted = Fitted(reconstruct=lambda block: codes[:1].repeat(len(block), 0))
    np.testing.assert_allclose(child.distortion(x, fitted), squared[:, 0].mean(), rtol=1e-12)
