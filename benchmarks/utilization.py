"""Train the same autoencoder around each quantizer and measure codebook utilization and reconstruction quality."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import machine, stored_results, variants
from benchmarks.autoencoder import Autoencoder, build
from benchmarks.codes import count_codebooks
from benchmarks.cost import measure_cost
from benchmarks.crops import VIEWS, held_out_tiles, held_out_views, training_batches
from benchmarks.data import Photographs
from benchmarks.errors import InputError
from benchmarks.evaluation import evaluate, reconstruct
from benchmarks.stored_results import StoredResult
from benchmarks.training import Curves, OnStep, Recipe, train


@dataclass(frozen=True)
class Outcome:
    """The finished results of a run, in the requested order, and the names of those that are missing."""

    finished: list[StoredResult]
    missing: list[str]
    interrupted: bool


class Watcher:
    """Receives the progress of a run. This base class ignores it."""

    def reused(self, result: StoredResult) -> None:
        """A stored result replaces a training."""

    def started(self, name: str) -> OnStep:
        """A training begins. Returns the function to call after each step (see training.train)."""
        return lambda step, mse, codes_used: None

    def finished(self, result: StoredResult) -> None:
        """A quantizer has been trained, measured and stored."""


def check(names: Sequence[str], recipe: Recipe) -> None:
    """Try the device and construct each quantizer once, so that mistakes surface before any training.

    Raises: InputError.
    """
    check_device(recipe.device)
    for name in names:
        try:
            variants.create(name, dim=recipe.dim, codebook_size=recipe.codebook_size, channel_dim=1)
        except (ValueError, TypeError, RuntimeError) as error:  # RuntimeError: no memory for such a codebook
            raise InputError(first_line(error)) from error


def check_device(device: str) -> None:
    """Check that torch can use the device. Raises: InputError if it cannot."""
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"--device: {device!r} cannot be used: {first_line(error)}") from error


@dataclass(frozen=True)
class Trained:
    """A trained model, its curves, the training time in seconds, and the iterator of the batches that follow."""

    model: Autoencoder
    curves: Curves
    seconds: float
    batches: Iterator[torch.Tensor]

    def describe(self, name: str) -> dict[str, Any]:
        """Return the fields of a StoredResult's numbers that say what was trained."""
        return {
            "quantizer": name,
            "codebook_size": self.model.quantizer.codebook_size,
            "codebooks": count_codebooks(self.model.quantizer),
            "train_seconds": self.seconds,
            "date": machine.date(),
        }


def train_new(name: str, recipe: Recipe, photographs: Photographs, on_step: OnStep) -> Trained:
    """Train the autoencoder around the quantizer of that name."""
    start = time.perf_counter()
    device = torch.device(recipe.device)
    model = build(name, dim=recipe.dim, codebook_size=recipe.codebook_size, seed=recipe.seed).to(device)
    batches = training_batches(photographs.train, recipe.batch_size, recipe.seed)
    with repeatable_convolutions():
        curves = train(model, batches, recipe, on_step, variants.aids(name))
    return Trained(model, curves, time.perf_counter() - start, batches)


def measure(
    name: str, recipe: Recipe, photographs: Photographs, on_step: OnStep, views: int = VIEWS
) -> StoredResult:
    """Train, evaluate on held-out images, then measure time and memory (last, because that trains the model
    further).

    `views` is the number of reconstructions to store as pictures.
    """
    trained = train_new(name, recipe, photographs, on_step)
    model, curves = trained.model, trained.curves
    with repeatable_convolutions():
        evaluation, counts = evaluate(model, held_out_tiles(photographs.held_out))
        seen = reconstruct(model, held_out_views(photographs.held_out, views))
        cost = measure_cost(model, next(trained.batches).to(recipe.device), recipe.learning_rate)
    numbers = {**trained.describe(name), **asdict(evaluation), **asdict(cost)}
    return StoredResult(
        numbers, counts.flatten().numpy(), curves.mse.numpy(), curves.codes_used.numpy(), seen.numpy()
    )


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
    """Measure each quantizer without a stored result in `folder` (all of them if `fresh`), and store each result.

    Ctrl-C ends the run early; the finished results are returned.
    """
    watcher = watcher or Watcher()
    keys = {name: stored_results.fingerprint(name, recipe, photographs) for name in names}
    finished: dict[str, StoredResult] = {}
    interrupted = False
    try:
        for name in names:
            stored = None if fresh else stored_results.load(folder, name, keys[name])
            if stored is not None:
                watcher.reused(stored)
                finished[name] = stored
                continue
            result = measure(name, recipe, photographs, watcher.started(name), views)
            stored_results.save(folder, keys[name], result)
            finished[name] = result
            watcher.finished(result)
    except KeyboardInterrupt:
        interrupted = True
    return Outcome(list(finished.values()), [n for n in names if n not in finished], interrupted)


@contextmanager
def repeatable_convolutions() -> Iterator[None]:
    """Make convolutions deterministic: cuDNN's fastest backward passes add in no fixed order. No effect on the
    CPU.
    """
    cudnn = torch.backends.cudnn
    with cudnn.flags(enabled=cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=cudnn.allow_tf32):
        yield


def first_line(error: BaseException) -> str:
    """Return the first line of the error's text, or the name of its class if the text is empty."""
    return (str(error) or type(error).__name__).splitlines()[0]
