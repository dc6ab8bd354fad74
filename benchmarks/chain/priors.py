"""The second stage: a prior for each level of an autoencoder's codes, conditioned on the level above."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.chain import checkpoints, levels
from benchmarks.chain.loop import Job, OnStep, seeded, train
from benchmarks.chain.reconstruction import Trained
from benchmarks.chain.settings import TRANSFORMER, Fitting
from benchmarks.chain.sources import Batch
from benchmarks.errors import InputError
from benchmarks.models.condition import Condition
from benchmarks.models.pixelcnn import PixelCNN
from benchmarks.models.prior import Prior
from benchmarks.models.transformer import Transformer
from benchmarks.utilization import first_line


class Fitted(NamedTuple):
    """The priors of a run, the top level's first.

    side: the side in pixels of the images that they were fitted on.
    """

    settings: Fitting
    priors: tuple[Prior, ...]
    side: int
    losses: tuple[Tensor, ...]


def build(settings: Fitting, trained: Trained, level: int) -> Prior:
    """Return an untrained prior for the codes of one level."""
    sizes = levels.sizes_of(trained.model)
    common = {
        "width": settings.width,
        "layers": settings.layers,
        "dropout": settings.dropout,
        "classes": trained.source.classes,
        "top_sizes": sizes[level - 1] if level else None,
    }
    try:
        if settings.model == TRANSFORMER:
            side = trained.source.prior_side
            largest = levels.grids(trained.model, side, side)[level]
            return Transformer(sizes[level], largest=largest, **common)
        return PixelCNN(sizes[level], **common)
    except (ValueError, TypeError) as error:
        raise InputError(first_line(error)) from error


def condition(batch: Batch, codes: levels.Codes, level: int, device: torch.device | str) -> Condition:
    """Return the condition of a level's prior: the labels, and the codes of the level above."""
    label = None if batch.labels is None else batch.labels.to(device)
    return Condition(label, codes[level - 1] if level else None)


def fit(
    settings: Fitting,
    trained: Trained,
    level: int,
    folder: Path,
    on_step: OnStep,
    *,
    device: str = "cpu",
    fresh: bool = False,
) -> tuple[Prior, Tensor]:
    """Train or resume the prior of one level, or load a finished one. The losses are in bits per code."""
    source, side = trained.source, trained.source.prior_side
    with seeded(settings.seed):
        prior = build(settings, trained, level).to(device)

    def loss(generator: torch.Generator) -> Tensor:
        batch = source.batch(settings.batch_size, side, generator)
        codes = levels.encode(trained.model, batch.images)
        bits = prior.bits(codes[level], condition(batch, codes, level, device))
        return bits.mean() / codes[level][0].numel()

    decides = {**asdict(settings), "level": level, "side": side, "autoencoder": identity(trained)}
    job = Job(prior, loss, lambda: None, lambda optimizer: [], decides)
    losses = train(job, folder / checkpoint_name(level), on_step, device=device, fresh=fresh)
    return prior, losses


def load(folder: Path, trained: Trained, device: str = "cpu") -> Fitted:
    """Load the finished priors. Raises: InputError if there are none, or if they belong to another autoencoder."""
    priors, losses, stored = [], [], {}
    for level in range(trained.settings.levels):
        path = folder / checkpoint_name(level)
        content = checkpoints.load_finished(path, "prior")
        stored = dict(content["settings"])
        if stored.pop("autoencoder") != identity(trained):
            raise InputError(f"{path} was fitted to the codes of another autoencoder: run `prior` to fit it again")
        side = stored.pop("side")
        stored.pop("level")
        prior = build(Fitting(**stored), trained, level).to(device)
        checkpoints.load_weights(path, prior, content["model"])
        priors.append(prior.eval())
        losses.append(content["losses"])
    return Fitted(Fitting(**stored), tuple(priors), side, tuple(losses))


@torch.no_grad()
def bits(fitted: Fitted, codes: levels.Codes, batch: Batch, at_once: int = 8) -> list[float]:
    """Return −log₂ p of all codes of each level, given the labels and the level above."""
    found = []
    for level, prior in enumerate(fitted.priors):
        total = 0.0
        for start in range(0, len(codes[level]), at_once):
            some = slice(start, start + at_once)
            chunk = Batch(batch.images[some], None if batch.labels is None else batch.labels[some])
            known = condition(chunk, tuple(each[some] for each in codes), level, codes[level].device)
            total += prior.bits(codes[level][some], known).double().sum().item()
        found.append(total)
    return found


def label_bits(batch: Batch, classes: int | None) -> float:
    """Return the bits of the labels for equally likely classes: log₂ of the number of classes each."""
    return 0.0 if batch.labels is None or classes is None else len(batch.labels) * math.log2(classes)


def identity(trained: Trained) -> str:
    """Return a digest of the autoencoder's weights."""
    return checkpoints.digest(trained.model.state_dict())


def checkpoint_name(level: int) -> str:
    return f"prior-{level}.pt"
