"""Four priors compared: PixelCNN, a raster and a masked transformer on the codes of a VQ-VAE, and a next-scale
transformer on the codes of a multi-scale VQ-VAE.

Bits of held-out images, where the prior has a likelihood; samples; and the time to draw them.
"""

import statistics
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import digits
from benchmarks.chain import (
    candidates,
    comparison_training,
    generative,
    multiscale,
    pictures,
    priors,
    rates,
    reconstruction,
)
from benchmarks.chain.candidates import Candidate
from benchmarks.chain.comparison_settings import Comparing
from benchmarks.chain.draws import COLUMNS, Filters, grid_labels
from benchmarks.chain.multiscale import MultiScaleTrained
from benchmarks.chain.pictures import Strip
from benchmarks.chain.priors import Fitted
from benchmarks.chain.progress import Bars
from benchmarks.chain.reconstruction import Trained
from benchmarks.chain.sources import Batch, to_grey_levels
from benchmarks.evaluation import psnr
from benchmarks.models.latent_samples import nearest_distance

FOLDER = "comparison"  # of the checkpoints, inside the run's
PICTURE = "priors.png"
TEMPERATURES = (1.0, 0.5)
REPEATS = 3  # of a timed sampling; the median counts
ROWS = 2  # of samples for each prior in the picture


def run(
    name: str,
    comparing: Comparing,
    trained: Trained,
    fitted: Fitted,
    folder: Path,
    bars: Bars,
    *,
    device: str,
    fresh: bool = False,
) -> dict[str, Any]:
    """Train what is missing, compare, and draw the picture. Returns the record.

    Args:
        trained, fitted: the autoencoder and the PixelCNN of a run with one level.
        folder: that run's.
    """
    bars.say(f"{name}: four priors")
    place = folder / FOLDER
    place.mkdir(parents=True, exist_ok=True)
    with bars.stage("multi-scale autoencoder", comparing.autoencoding.steps, "loss") as on_step:
        scales = multiscale.fit(comparing, trained.source, place, on_step, device=device, fresh=fresh)
    batch = rates.tiles(trained.source, trained.source.prior_side)
    compared = _fit(comparing, trained, fitted, scales, place, bars, device=device, fresh=fresh)
    with bars.stage("sampling", len(compared)) as on_step:
        rows = []
        for done, candidate in enumerate(compared):
            rows.append(measure(candidate, comparing, trained, batch))
            on_step(done + 1, torch.zeros(()))
    pictures.write(folder / PICTURE, strips(compared, trained, scales, batch, comparing.autoencoding.seed))
    return {
        "name": name,
        "settings": asdict(comparing),
        "images": len(batch.images),
        "side": batch.images.shape[-1],
        "priors": rows,
        "scales": multiscale.usage(scales, batch.images),
    }


def _fit(
    comparing: Comparing,
    trained: Trained,
    fitted: Fitted,
    scales: MultiScaleTrained,
    place: Path,
    bars: Bars,
    *,
    device: str,
    fresh: bool,
) -> list[Candidate]:
    """Train the three transformers, and return all four priors, the last one also with guidance."""
    steps, where = comparing.fitting.steps, {"device": device, "fresh": fresh}
    with bars.stage("raster transformer", steps, "bits/code") as on_step:
        priors.fit(comparing.fitting, trained, 0, place, on_step, **where)
    with bars.stage("masked transformer", steps, "bits/masked code") as on_step:
        masked, _losses = comparison_training.fit_masked(comparing, trained, place, on_step, **where)
    with bars.stage("next-scale transformer", steps, "bits/code") as on_step:
        next_scale, _losses = comparison_training.fit_next_scale(comparing, scales, place, on_step, **where)
    return [
        candidates.raster("PixelCNN", trained, fitted, device),
        candidates.raster("raster", trained, priors.load(place, trained, device), device),
        candidates.masked(masked, comparing, trained, device),
        candidates.next_scale(next_scale, scales, device),
        *([candidates.next_scale(next_scale, scales, device, comparing.guidance)] if comparing.guidance else []),
    ]


def measure(candidate: Candidate, comparing: Comparing, trained: Trained, batch: Batch) -> dict[str, Any]:
    """Return the numbers of one prior.

    parameters        of the prior alone
    codes_per_image   that it predicts
    passes            forward passes for a sample, of whole images or of single codes
    psnr_db           of its autoencoder, on the held-out images
    bits_per_code, bits_per_image  −log₂ p of held-out images, given their labels; None without a likelihood
    seconds_together, seconds_alone  for an image, sampled in a batch and alone, including the decoder
    samples           of digits, for each temperature, see `judge`
    """
    images = len(batch.images)
    bits = None if candidate.bits is None else candidate.bits(batch)
    together = comparing.together
    return {
        "name": candidate.name,
        "parameters": sum(each.numel() for each in candidate.prior.parameters()),
        "codes_per_image": candidate.codes,
        "passes": candidate.passes,
        "psnr_db": quality(batch.images, candidate.copy(batch.images)),
        "bits_per_code": None if bits is None else bits / images / candidate.codes,
        "bits_per_image": None if bits is None else bits / images,
        "together": together,
        "seconds_together": seconds(candidate, trained, together) / together,
        "seconds_alone": seconds(candidate, trained, 1),
        "samples": [judge(candidate, each) for each in TEMPERATURES] if trained.source.classes else [],
    }


def quality(original: Tensor, copy: Tensor) -> float:
    """Return the PSNR in dB of images in [−1, 1], rounded to 256 levels."""
    return psnr(reconstruction.mean_square(to_grey_levels(original), to_grey_levels(copy)))


def seconds(candidate: Candidate, trained: Trained, count: int) -> float:
    """Return the median time to sample `count` images as a batch, after one that is not timed."""
    classes = trained.source.classes
    labels = None if classes is None else torch.arange(count) % classes
    times = []
    for repeat in range(REPEATS + 1):
        start = time.perf_counter()
        candidate.draw(labels, count, Filters(), repeat)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def judge(candidate: Candidate, temperature: float) -> dict[str, float]:
    """Sample as many digits as are held out, all classes in turn, and compare them with the data, as
    `generative.rows` does.
    """
    train, held_out = digits.load()
    labels = torch.arange(len(held_out.labels)) % digits.CLASSES
    images = candidate.draw(labels, len(labels), Filters(temperature), 0)
    classifier = generative.fit_classifier(train)
    return {
        "temperature": temperature,
        "recognised": generative.recognised(classifier, digits.Digits(images, labels)),
        "to_data": float(nearest_distance(images, train.images).mean()),
        "from_held_out": float(nearest_distance(held_out.images, images).mean()),
    }


def strips(
    compared: list[Candidate], trained: Trained, scales: MultiScaleTrained, batch: Batch, seed: int
) -> list[Strip]:
    """Return rows of samples of each prior, for digits with a class in each column, and a held-out image as
    decoded from its first scale, its first two, and so on.
    """
    count = ROWS * COLUMNS
    labels = grid_labels(trained, ROWS)
    rows = [
        strip
        for each in compared
        for strip in pictures.in_rows(each.draw(labels, count, Filters(), seed), COLUMNS, each.name)
    ]
    image = batch.images[:1]
    partial = multiscale.prefixes(scales, image)
    return [*rows, Strip(f"1 to {len(partial)} scales, original", torch.cat([partial, image]))]
