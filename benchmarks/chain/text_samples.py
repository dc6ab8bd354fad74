"""Digits sampled for captions, and how well they follow them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.captions import ATTRIBUTES, VOCABULARY, Captioner, caption
from benchmarks.chain import levels
from benchmarks.chain.generative import fit_classifier, recognised
from benchmarks.chain.pictures import Strip
from benchmarks.chain.reconstruction import Trained
from benchmarks.digits import CLASSES, Digits
from benchmarks.models.caption_transformer import CaptionTransformer, start_guided
from benchmarks.models.sampling import sample_steps

SHOWN = 10  # samples per prompt in the picture
PROMPTS = (
    "a three",
    "a thin three",
    "a bold three",
    "a seven",
    "a narrow seven",
    "a wide seven",
    "a thin wide zero",
)
THIRDS = (-1, 0, 1)


@dataclass(frozen=True)
class Asked:
    """What captions say: labels, int64 [N], and the third of each attribute, int64 [N, A] in −1, 0, 1."""

    labels: Tensor
    thirds: Tensor

    @property
    def captions(self) -> list[str]:
        return list(map(caption, self.labels.tolist(), self.thirds.tolist()))


def every_caption(count: int) -> Asked:
    """Return every caption `count` times."""
    attributes = [torch.tensor(THIRDS)] * len(ATTRIBUTES)
    rows = torch.cartesian_prod(torch.arange(CLASSES), *attributes).repeat_interleave(count, 0)
    return Asked(rows[:, 0], rows[:, 1:])


def draw(
    trained: Trained,
    prior: CaptionTransformer,
    captions: Sequence[str],
    *,
    guidance: float,
    seed: int,
    device: str,
) -> Tensor:
    """Return one sampled image in [−1, 1] for each caption. Raises: InputError for words without a number."""
    side = trained.source.prior_side
    words = VOCABULARY.encode(captions).to(device)
    steps = start_guided(prior, words, levels.grids(trained.model, side, side)[0], guidance)
    codes = sample_steps(steps, generator=torch.Generator(device).manual_seed(seed))
    return levels.decode(trained.model, (codes,))


def strips(trained: Trained, prior: CaptionTransformer, *, guidance: float, seed: int, device: str) -> list[Strip]:
    """Return a row of samples for each of PROMPTS."""
    captions = [prompt for prompt in PROMPTS for _ in range(SHOWN)]
    images = draw(trained, prior, captions, guidance=guidance, seed=seed, device=device)
    return [Strip(prompt, row) for prompt, row in zip(PROMPTS, images.split(SHOWN), strict=True)]


class Judge:
    """Compares images with what was asked for, by a classifier and terciles of the training digits."""

    def __init__(self, train: Digits) -> None:
        self.captioner = Captioner(train)
        self.classifier = fit_classifier(train)

    def record(self, name: str, asked: Asked, images: Tensor) -> dict[str, Any]:
        """Return how well images [N, 1, h, w] follow what was asked for.

        recognised  share that a support vector machine, fitted to the training images, assigns to the asked digit
        attributes  for each: the mean measure of the images for the low adjective, none, and the high one; and the
                    share of images of each kind that fall into the third that was asked for
        """
        given = Digits(images, asked.labels)
        found = self.captioner.thirds(given)
        return {
            "name": name,
            "recognised": recognised(self.classifier, given),
            "attributes": [
                {
                    "name": attribute.name,
                    "adjectives": [attribute.adjective(third) for third in THIRDS],
                    "means": _means(attribute.measure(images), asked.thirds[:, a]),
                    "followed": _means(found[:, a] == asked.thirds[:, a], asked.thirds[:, a]),
                }
                for a, attribute in enumerate(ATTRIBUTES)
            ],
        }


def _means(values: Tensor, thirds: Tensor) -> list[float]:
    """Return the mean of the values [N] in each third."""
    return [values[thirds == third].double().mean().item() for third in THIRDS]
