"""Train the same autoencoder around each quantizer and measure what becomes of its codes."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import machine, parts, variants
from benchmarks.autoencoder import Autoencoder, build
from benchmarks.codes import count_codebooks
from benchmarks.cost import measure_cost
from benchmarks.crops import VIEWS, held_out_tiles, held_out_views, training_batches
from benchmarks.data import Photographs
from benchmarks.errors import InputError
from benchmarks.evaluation import evaluate, reconstruct
from benchmarks.parts import Part
from benchmarks.training import Curves, OnStep, Recipe, train


@dataclass(frozen=True)
class Outcome:
    """What a run has: the finished parts in the order asked for, and the names of those that are missing."""

    finished: list[Part]
    missing: list[str]
    interrupted: bool


class Watcher:
    """Is told how a run goes; this one says nothing."""

    def reused(self, part: Part) -> None:
        """A stored result is taken instead of training."""

    def started(self, name: str) -> OnStep:
        """Training begins; returns what is to be called after each step (see training.train)."""
        return lambda step, mse, codes_used: None

    def finished(self, part: Part) -> None:
        """A quantizer is trained, measured and stored."""


def check(names: Sequence[str], recipe: Recipe) -> None:
    """Try the device and make each quantizer once, so that a mistake is found before any training.

    Raises: InputError.
    """
    check_device(recipe.device)
    for name in names:
        try:
            variants.create(name, dim=recipe.dim, codebook_size=recipe.codebook_size, channel_dim=1)
        except (ValueError, TypeError, RuntimeError) as error:  # RuntimeError: no memory for such a codebook
            raise InputError(first_line(error)) from error


def check_device(device: str) -> None:
    """Raises: InputError for a device that cannot be used."""
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"--device: {device!r} cannot be used: {first_line(error)}") from error


@dataclass(frozen=True)
class Trained:
    """A trained model, its curves, the seconds it took, and the batches that would have come next."""

    model: Autoencoder
    curves: Curves
    seconds: float
    batches: Iterator[torch.Tensor]

    def describe(self, name: str) -> dict[str, Any]:
        """The numbers of a Part that say what was trained."""
        return {
            "quantizer": name,
            "codebook_size": self.model.quantizer.codebook_size,
            "codebooks": count_codebooks(self.model.quantizer),
            "train_seconds": self.seconds,
            "date": machine.date(),
        }


def train_new(name: str, recipe: Recipe, photographs: Photographs, on_step: OnStep) -> Trained:
    """Train the autoencoder around that quantizer."""
    start = time.perf_counter()
    device = torch.device(recipe.device)
    model = build(name, dim=recipe.dim, codebook_size=recipe.codebook_size, seed=recipe.seed).to(device)
    batches = training_batches(photographs.train, recipe.batch_size, recipe.seed)
    with repeatable_convolutions():
        curves = train(model, batches, recipe, on_step, variants.aids(name))
    return Trained(model, curves, time.perf_counter() - start, batches)


def measure(name: str, recipe: Recipe, photographs: Photographs, on_step: OnStep, views: int = VIEWS) -> Part:
    """Train, evaluate on held-out images, then measure time and memory (which trains on, so it comes last).

    `views` says how many reconstructions are kept to look at.
    """
    trained = train_new(name, recipe, photographs, on_step)
    model, curves = trained.model, trained.curves
    with repeatable_convolutions():
        evaluation, counts = evaluate(model, held_out_tiles(photographs.held_out))
        seen = reconstruct(model, held_out_views(photographs.held_out, views))
        cost = measure_cost(model, next(trained.batches).to(recipe.device), recipe.learning_rate)
    numbers = {**trained.describe(name), **asdict(evaluation), **asdict(cost)}
    return Part(numbers, counts.flatten().numpy(), curves.mse.numpy(), curves.codes_used.numpy(), seen.numpy())


def run(
    names: Sequence[str],
    recipe: Recipe,
    photographs: Photographs,
    folder: Path,
    *,
    fresh: bool = False,
    watcher: Watcher | None = None,
    views: int = VIEWS,
) -> Outcome:
    """Measure each quantizer that `folder` has no result of (each one, if `fresh`), storing as it goes.

    Ctrl-C ends the run early; what is finished is returned.
    """
    watcher = watcher or Watcher()
    keys = {name: parts.fingerprint(name, recipe, photographs) for name in names}
    finished: dict[str, Part] = {}
    interrupted = False
    try:
        for name in names:
            stored = None if fresh else parts.load(folder, name, keys[name])
            if stored is not None:
                watcher.reused(stored)
                finished[name] = stored
                continue
            part = measure(name, recipe, photographs, watcher.started(name), views)
            parts.save(folder, keys[name], part)
            finished[name] = part
            watcher.finished(part)
    except KeyboardInterrupt:
        interrupted = True
    return Outcome(list(finished.values()), [n for n in names if n not in finished], interrupted)


@contextmanager
def repeatable_convolutions() -> Iterator[None]:
    """cuDNN's fastest backward passes add in no fixed order; on the CPU this changes nothing."""
    cudnn = torch.backends.cudnn
    with cudnn.flags(enabled=cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=cudnn.allow_tf32):
        yield


def first_line(error: BaseException) -> str:
    """Of what it says, or its name where it says nothing."""
    return (str(error) or type(error).__name__).splitlines()[0]
