"""Digits sampled from an autoencoder, a VAE, and a VQ-VAE with a prior, for comparison."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sklearn.svm import SVC
from torch import Tensor

from benchmarks import digits
from benchmarks.chain import checkpoints, draws
from benchmarks.chain.loop import seeded
from benchmarks.chain.priors import Fitted
from benchmarks.chain.reconstruction import Trained
from benchmarks.models.latent_samples import Samples, compare, nearest_distance

LATENTS = "latents.pt"
# The prior's distribution, and a sharper one.
TEMPERATURES = {"VQ-VAE and prior": 1.0, "the same, temperature 0.5": 0.5}


@dataclass(frozen=True)
class Row:
    """The samples of one model.

    images         [N, 1, 8, 8]
    to_data        mean distance of a sample to the nearest training image
    from_held_out  mean distance of a held-out image to the nearest sample
    recognised     share of samples that a classifier of the training images assigns to the digit that they were
                   sampled for; None if the samples have no digit
    """

    name: str
    images: Tensor
    to_data: float
    from_held_out: float
    recognised: float | None = None

    def record(self) -> dict[str, Any]:
        """Return the numbers for the JSON."""
        return {
            "name": self.name,
            "to_data": self.to_data,
            "from_held_out": self.from_held_out,
            "recognised": self.recognised,
        }


def latent_samples(folder: Path, steps: int, seed: int, *, fresh: bool = False) -> dict[str, Samples]:
    """Return the samples of `models.latent_samples`, stored in the folder."""
    key = checkpoints.fingerprint({"latents": steps, "seed": seed}, "cpu")
    stored = None if fresh else checkpoints.load(folder / LATENTS)
    if stored is not None and stored.get("fingerprint") == key:
        return {name: Samples(*tensors) for name, tensors in stored["samples"].items()}
    train, held_out = digits.load()
    with seeded(seed):
        found = compare(train, held_out, steps=steps, seed=seed)
    content = {name: [each.clone() for each in samples] for name, samples in found.items()}
    checkpoints.save(folder / LATENTS, {"fingerprint": key, "samples": content})
    return found


def rows(latents: dict[str, Samples], trained: Trained, fitted: Fitted, *, seed: int, device: str) -> list[Row]:
    """Return images of the data, decoded latents, and as many samples of the prior, one class after another."""
    train, held_out = digits.load()
    labels = torch.arange(len(held_out.labels)) % digits.CLASSES
    samples = dict(latents)
    # For "data" the classifier sees held-out images, not those that it was fitted to.
    labelled = {"data": held_out}
    for name, temperature in TEMPERATURES.items():
        filters = draws.Filters(temperature)
        images = draws.draw(trained, fitted, labels, len(labels), filters=filters, seed=seed, device=device)
        distances = nearest_distance(images, train.images), nearest_distance(held_out.images, images)
        samples[name] = Samples(images, *distances)
        labelled[name] = digits.Digits(images, labels)
    classifier = fit_classifier(train)
    known = {name: recognised(classifier, each) for name, each in labelled.items()}
    return [
        Row(name, each.images, float(each.to_data.mean()), float(each.from_held_out.mean()), known.get(name))
        for name, each in samples.items()
    ]


def fit_classifier(train: digits.Digits) -> SVC:
    """Fit a support vector machine that recognises digits."""
    return SVC(gamma=0.01).fit(train.images.flatten(1).numpy(), train.labels.numpy())


def recognised(classifier: SVC, samples: digits.Digits) -> float:
    """Return the share of images that the classifier assigns to their labels."""
    return float(classifier.score(samples.images.flatten(1).numpy(), samples.labels.numpy()))
