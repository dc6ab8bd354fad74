"""The benchmark of the kernels on real data: its pieces on small tensors."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.kernels import latents, real
from benchmarks.kernels.latents import Latents
from benchmarks.kernels.shapes import Shape

TINY = Latents(real.VQ_VARIANT, Shape(100, 16, 4), steps=3, further=70)


# Data sets


def test_latents_are_stored_and_trained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainings = []
    honest = latents.train
    monkeypatch.setattr(latents, "train", lambda *args: trainings.append(1) or honest(*args))
    made = TINY.load(tmp_path)
    assert [tuple(made[name].shape) for name in ("x", "codebook", "further")] == [(100, 4), (16, 4), (70, 4)]
    assert all(torch.isfinite(tensor).all() for tensor in made.values())
    again = TINY.load(tmp_path)
    assert all(torch.equal(made[name], again[name]) for name in made)
    assert len(trainings) == 1
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-50])
    repeated = TINY.load(tmp_path)
    assert all(torch.equal(made[name], repeated[name]) for name in made)
    replace(TINY, steps=2).load(tmp_path)  # the same file, of another training
    assert len(trainings) == 3
    assert not list(tmp_path.glob("*.tmp"))


def test_unused_codes_are_replaced_within_a_brief_training() -> None:
    """A code without use is replaced after t steps with DECAYᵗ < 0.1, and every training has more."""
    steps = math.log(0.1) / math.log(latents.DECAY)
    assert all(steps < made.steps for made in real.TRAININGS)
    model = torch.nn.Sequential(latents.build(real.VQ_VARIANT, dim=4, codebook_size=8, seed=0))
    optimizer = torch.optim.SGD(model.parameters())
    assert latents.BriefAids(replace="dead").replacement(model, optimizer).decay == latents.DECAY
    assert latents.BriefAids().replacement(model, optimizer) is None


def test_patches_are_principal_components() -> None:
    """Of vectors and codes together: uncorrelated, the largest variance first. Float32 leaves a relative error of
    about 10⁻⁵ of the largest variance."""
    x, codebook = real.draw_patches(Shape(300, 200, 12))
    both = torch.cat([x, codebook]).double()
    covariance = both.T @ both / len(both)
    variances = covariance.diagonal()
    assert (variances.diff() <= 0).all()
    assert float((covariance - variances.diag()).abs().max()) < 1e-4 * float(variances[0])
    assert x.shape == (300, 12)
    assert codebook.shape == (200, 12)


def test_fewer_vectors_keep_the_codebook(tmp_path: Path) -> None:
    whole = real.normal(Shape(30, 20, 3))
    few = real.fewer(whole, 7)
    assert few.shape == Shape(7, 20, 3)
    for a, b in zip(few.load(tmp_path), whole.load(tmp_path), strict=True):
        assert torch.equal(a, b[: len(a)])
