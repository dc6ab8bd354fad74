"""The priors that only the comparison trains: a masked one on the codes of a VQ-VAE, and a next-scale one on those
of a multi-scale VQ-VAE.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.chain import levels, multiscale, priors
from benchmarks.chain.comparison_settings import Comparing
from benchmarks.chain.loop import Job, OnStep, seeded, train
from benchmarks.chain.multiscale import MultiScaleTrained
from benchmarks.chain.reconstruction import Trained
from benchmarks.chain.sources import Batch
from benchmarks.errors import InputError
from benchmarks.models.masked import MaskedTransformer
from benchmarks.models.next_scale import NextScaleTransformer
from benchmarks.utilization import first_line

MASKED, NEXT_SCALE = "masked.pt", "next-scale.pt"


def fit_masked(
    comparing: Comparing, trained: Trained, folder: Path, on_step: OnStep, *, device: str, fresh: bool = False
) -> tuple[MaskedTransformer, Tensor]:
    """Train or resume the masked prior of a VQ-VAE with one codebook. Its losses are bits per masked code."""
    settings, side = comparing.fitting, trained.source.prior_side
    with seeded(settings.seed):
        prior = build_masked(comparing, trained).to(device)

    def loss(generator: torch.Generator) -> Tensor:
        batch = trained.source.batch(settings.batch_size, side, generator)
        (codes,) = levels.encode(trained.model, batch.images)
        seed = int(torch.randint(2**62, (), generator=generator))
        on_device = torch.Generator(device).manual_seed(seed)
        return prior.loss(codes, labels_on(batch, device), generator=on_device)

    decides = {**asdict(settings), "side": side, "autoencoder": priors.identity(trained)}
    job = Job(prior, loss, lambda: None, lambda optimizer: [], decides)
    return prior, train(job, folder / MASKED, on_step, device=device, fresh=fresh)


def fit_next_scale(
    comparing: Comparing,
    trained: MultiScaleTrained,
    folder: Path,
    on_step: OnStep,
    *,
    device: str,
    fresh: bool = False,
) -> tuple[NextScaleTransformer, Tensor]:
    """Train or resume the next-scale prior. Its losses are bits per token."""
    settings, source = comparing.fitting, trained.source
    with seeded(settings.seed):
        prior = build_next_scale(comparing, trained).to(device)

    def loss(generator: torch.Generator) -> Tensor:
        batch = source.batch(settings.batch_size, source.prior_side, generator)
        return next_scale_bits(prior, trained, batch).mean() / trained.model.lengths(trained.grid)[-1]

    decides = {**asdict(settings), "side": source.prior_side, "autoencoder": trained.identity}
    job = Job(prior, loss, lambda: None, lambda optimizer: [], decides)
    return prior, train(job, folder / NEXT_SCALE, on_step, device=device, fresh=fresh)


def build_masked(comparing: Comparing, trained: Trained) -> MaskedTransformer:
    """Return an untrained masked prior. Raises: InputError for an autoencoder with several codebooks or levels."""
    sizes = levels.sizes_of(trained.model)
    if len(sizes) != 1 or len(sizes[0]) != 1:
        raise InputError(
            f"the autoencoder has codebooks of {sizes} codes by level, expected one level with one codebook: a "
            "masked prior fills one grid"
        )
    side = trained.source.prior_side
    (grid,) = levels.grids(trained.model, side, side)
    return _built(MaskedTransformer, sizes[0][0], comparing, trained.source.classes, largest=grid)


def build_next_scale(comparing: Comparing, trained: MultiScaleTrained) -> NextScaleTransformer:
    """Return an untrained next-scale prior."""
    quantizer = trained.model.quantizer
    if len(set(trained.model.sizes)) != 1:
        raise InputError(f"the scales have {trained.model.sizes} codes, expected the same number for all")
    return _built(
        NextScaleTransformer,
        trained.model.sizes[0],
        comparing,
        trained.source.classes,
        dim=quantizer.code_dim,
        scales=trained.model.scales(trained.grid),
    )


def next_scale_bits(prior: NextScaleTransformer, trained: MultiScaleTrained, batch: Batch) -> Tensor:
    """Return −log₂ p of all tokens of each image: [B]."""
    tokens = multiscale.encode(trained, batch.images)
    with torch.no_grad():
        inputs = trained.model.quantizer.scale_inputs(tokens, trained.grid)
    return prior.bits(tokens, inputs, labels_on(batch, tokens.device))


def labels_on(batch: Batch, device: torch.device | str) -> Tensor | None:
    """Return the labels on the device."""
    return None if batch.labels is None else batch.labels.to(device)


def _built(kind: type[nn.Module], codes: int, comparing: Comparing, classes: int | None, **others: Any) -> Any:
    """Return a transformer with the width, layers and dropout of the comparison.

    For guidance, a tenth of the labels is dropped in training.
    """
    fitting = comparing.fitting
    label_dropout = 0.1 if comparing.guidance else 0.0
    common = {"width": fitting.width, "layers": fitting.layers, "dropout": fitting.dropout, "classes": classes}
    try:
        return kind(codes, **others, **common, label_dropout=label_dropout)
    except (ValueError, TypeError) as error:
        raise InputError(first_line(error)) from error
