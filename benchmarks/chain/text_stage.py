"""A prior over captions and the codes of their digits: training, bits, and samples."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.captions import PADDING, VOCABULARY, Captioner
from benchmarks.chain import levels, pictures, text_samples
from benchmarks.chain.loop import Job, OnStep, seeded, train
from benchmarks.chain.priors import identity
from benchmarks.chain.progress import Bars
from benchmarks.chain.reconstruction import Trained
from benchmarks.chain.sources import DigitSource
from benchmarks.chain.text_samples import Asked, Judge
from benchmarks.digits import Digits
from benchmarks.errors import InputError
from benchmarks.models.caption_transformer import Caption, CaptionTransformer
from benchmarks.utilization import first_line

CHECKPOINT = "captions.pt"
PICTURE = "captions.png"
GUIDANCES = (0.0, 2.0)  # the prior's distribution, and one that follows the caption more closely, as drawn


@dataclass(frozen=True)
class Captioning:
    """A caption transformer and its training.

    empty     share of the training captions that are replaced by the empty one, for guidance
    samples   measured samples per caption
    """

    width: int = 64
    layers: int = 3
    dropout: float = 0.3
    empty: float = 0.1
    steps: int = 600
    batch_size: int = 64
    learning_rate: float = 2e-3
    samples: int = 10
    seed: int = 0


class Captioned(NamedTuple):
    """Digits with their captions' words, int64 [N, T], and their codes, int64 [N, h, w, n]."""

    digits: Digits
    words: Tensor
    codes: Tensor


def describe(trained: Trained, device: str = "cpu") -> tuple[Captioned, Captioned]:
    """Return the training digits and the held-out digits, with captions and codes.

    Raises: InputError for an autoencoder of other data, or with two levels of codes.
    """
    source = trained.source
    if not isinstance(source, DigitSource) or trained.settings.levels != 1:
        raise InputError(
            f"the autoencoder is one of {trained.settings.data} with {trained.settings.levels} levels; expected "
            "digits and one level: captions describe digits, and the prior has one grid of codes"
        )
    captioner = Captioner(source.train)
    train_digits, held_out = (
        Captioned(
            each, VOCABULARY.encode(captioner(each)).to(device), levels.encode(trained.model, each.images)[0]
        )
        for each in (source.train, source.rest)
    )
    return train_digits, held_out


def build(settings: Captioning, trained: Trained) -> CaptionTransformer:
    """Return an untrained prior. Raises: InputError for invalid settings."""
    side = trained.source.prior_side
    try:
        return CaptionTransformer(
            levels.sizes_of(trained.model)[0],
            settings.width,
            vocabulary=VOCABULARY.size,
            length=VOCABULARY.length,
            layers=settings.layers,
            dropout=settings.dropout,
            largest=levels.grids(trained.model, side, side)[0],
        )
    except (ValueError, TypeError) as error:
        raise InputError(first_line(error)) from error


def fit(
    settings: Captioning,
    trained: Trained,
    data: Captioned,
    folder: Path,
    on_step: OnStep,
    *,
    device: str = "cpu",
    fresh: bool = False,
) -> CaptionTransformer:
    """Train or resume the prior, or load a finished one."""
    with seeded(settings.seed):
        prior = build(settings, trained).to(device)

    def loss(generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(data.codes), (settings.batch_size,), generator=generator).to(device)
        emptied = torch.rand(settings.batch_size, 1, generator=generator) < settings.empty
        words = data.words[chosen].masked_fill(emptied.to(device), PADDING)
        return prior.loss(data.codes[chosen], words)

    decides = {**asdict(settings), "vocabulary": list(VOCABULARY.words), "autoencoder": identity(trained)}
    job = Job(prior, loss, lambda: None, lambda optimizer: [], decides)
    train(job, folder / CHECKPOINT, on_step, device=device, fresh=fresh)
    return prior


@torch.no_grad()
def bits(prior: CaptionTransformer, data: Captioned) -> dict[str, float]:
    """Return the mean bits of a code given its caption and given an empty one, and of a whole caption."""
    of_words, of_codes = prior.joint_bits(data.codes, data.words)
    alone = prior.bits(data.codes, Caption(words=torch.full_like(data.words, PADDING)))
    codes = data.codes[0].numel()
    return {
        "code_given_caption": of_codes.mean().item() / codes,
        "code_given_empty": alone.mean().item() / codes,
        "caption": of_words.mean().item(),
    }


def run(
    trained: Trained,
    settings: Captioning,
    folder: Path,
    bars: Bars,
    *,
    device: str = "cpu",
    fresh: bool = False,
) -> dict[str, Any]:
    """Train the prior, measure it, and draw samples for prompts in captions.png. Returns the record.

    Raises: InputError for invalid settings, and for an autoencoder of other data or with two levels.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data, held_out = describe(trained, device)
    with bars.stage("prior of captions and codes", settings.steps, "loss") as on_step:
        prior = fit(settings, trained, data, folder, on_step, device=device, fresh=fresh)
    drawn = text_samples.strips(trained, prior, guidance=GUIDANCES[-1], seed=settings.seed, device=device)
    pictures.write(folder / PICTURE, drawn)
    return {
        "settings": asdict(settings),
        "parameters": sum(parameter.numel() for parameter in prior.parameters()),
        "training": bits(prior, data),
        "held_out": bits(prior, held_out),
        "samples": _samples(trained, prior, data, held_out, settings, device),
    }


def _samples(
    trained: Trained,
    prior: CaptionTransformer,
    data: Captioned,
    held_out: Captioned,
    settings: Captioning,
    device: str,
) -> list[dict[str, Any]]:
    """Return how well images follow captions: held-out ones, these decoded from codes, and the samples."""
    judge = Judge(data.digits)
    own = Asked(held_out.digits.labels, judge.captioner.thirds(held_out.digits))
    decoded = levels.decode(trained.model, (held_out.codes,))
    found = [
        judge.record("held-out images", own, held_out.digits.images),
        judge.record("the same, decoded from codes", own, decoded),
    ]
    asked = text_samples.every_caption(settings.samples)
    for guidance in GUIDANCES:
        images = text_samples.draw(
            trained, prior, asked.captions, guidance=guidance, seed=settings.seed, device=device
        )
        found.append(judge.record(f"samples, guidance {guidance:g}", asked, images))
    return found
