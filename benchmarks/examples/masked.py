"""Masked prediction of speech, as in BEST-RQ: a small encoder learns to guess the codes of hidden frames.

Chiu, Qin, Zhang, Yu, Wu: Self-Supervised Learning with Random-Projection Quantizer for Speech Recognition, 2022
(arXiv 2202.01855). The codes are those that a fixed quantizer has for mel frames; they are compared with the codes
of another quantizer. Other than in the paper, the encoder hears speech in noise and the codes are those of the
speech without noise, as in WavLM (Chen et al. 2021, arXiv 2110.13900).

The codes of one quantizer are easier to guess than those of another, so that the shares of right guesses cannot be
compared. What can be compared is how well a linear map of the encoder's features finds the vowel of a frame, in
frames that the encoder hears and in frames that are hidden from it.
"""

import math

import torch
import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F

import quantizers
from benchmarks import dots
from benchmarks.examples.heard import DIM, SECONDS, STACKED, corpora, hidden, masks
from benchmarks.examples.swap import (
    FOLDER,
    Comparison,
    Measure,
    Out,
    QuantizerName,
    Result,
    Seeds,
    Steps,
    Trainer,
    Trial,
    compare,
    write,
)
from benchmarks.examples.vowel_probe import percent, vowels
from benchmarks.examples.waves import BANDS
from benchmarks.plots import PALE, PALETTE
from quantizers import Quantizer, metrics

PUBLISHED = "random_projection"
CODES = 64
WIDTH, LAYERS, HEADS = 96, 2, 4
GUESSED = PALETTE[2]  # in the picture
BATCH = 16  # utterances of a training step
MEASURES = (
    Measure("guessed_percent", "guessed %", 1),
    Measure("most_frequent_percent", "frequent %", 1),
    Measure("heard_vowels_percent", "vowels %", 1),
    Measure("hidden_vowels_percent", "hidden %", 1),
)


class Encoder(nn.Module):
    """A small transformer over frames, with a convolution that tells positions apart, and a head for codes."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(DIM, WIDTH)
        self.near = nn.Conv1d(WIDTH, WIDTH, 5, padding=2, groups=WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, 0.0, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, LAYERS, nn.LayerNorm(WIDTH), enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, CODES)

    def features(self, frames: Tensor) -> Tensor:
        """Map frames [B, T, DIM] to features [B, T, WIDTH]."""
        x = self.enter(frames)
        features: Tensor = self.layers(x + F.gelu(self.near(x.transpose(1, 2))).transpose(1, 2))
        return features

    def forward(self, frames: Tensor) -> Tensor:
        """Map frames [B, T, DIM] to logits of codes [B, T, CODES]."""
        logits: Tensor = self.head(self.features(frames))
        return logits


def build(seed: int) -> Encoder:
    """Build the encoder, with the same initial weights for the same seed."""
    torch.manual_seed(seed)
    return Encoder()


def labels(name: str, seed: int) -> tuple[Tensor, Tensor]:
    """Return the codes of the clean frames to train on and of those held out, int64 [B, T].

    The quantizer is fitted to the frames and never trained.
    """
    trained, held_out = corpora(seed)
    torch.manual_seed(seed)
    quantizer: Quantizer = quantizers.create(name, dim=DIM, codebook_size=CODES).eval()
    if (quantizer.num_codebooks, quantizer.codebook_size) != (1, CODES):
        raise typer.BadParameter(
            f"{name} has {quantizer.num_codebooks} codebooks of {quantizer.codebook_size} codes, expected one of "
            f"{CODES}",
            param_hint="--quantizer",
        )
    with torch.no_grad():
        quantizer.initialize_from(trained.clean)  # statistics for a random projection, k-means for a codebook
        return quantizer.encode(trained.clean), quantizer.encode(held_out.clean)


def run(name: str, seed: int, train: Trainer) -> Trial:
    """Train an encoder to predict a quantizer's codes, then measure it on held-out speech."""
    generator = torch.Generator().manual_seed(seed)
    model, (trained, held_out), (codes, held_out_codes) = build(seed), corpora(seed), labels(name, seed)

    def step() -> Tensor:
        chosen = torch.randint(len(codes), (BATCH,), generator=generator)
        frames = trained.noisy[chosen]
        mask = masks(*frames.shape[:2], generator)
        logits = model(hidden(frames, mask, generator))
        return F.cross_entropy(logits[mask], codes[chosen][mask])

    train(model, step)
    generator = torch.Generator().manual_seed(0)
    mask = masks(*held_out_codes.shape, generator)
    with torch.no_grad():
        right = model(hidden(held_out.noisy, mask, generator)).argmax(-1) == held_out_codes
    measured = {
        "guessed_percent": percent(right[mask]),
        "most_frequent_percent": percent(held_out_codes[mask] == codes.flatten().mode().values),
    }
    return Trial(
        measured | vowels(model.features, seed), [metrics.code_counts(held_out_codes, CODES)], (mask, right)
    )


def picture(comparison: Comparison) -> Figure:
    """Draw what the encoder hears of two held-out utterances, which codes it guesses, and how many vowels a linear
    map finds, a dot for each seed.
    """
    figure = Figure(figsize=(9, 6.6), layout="constrained")
    rows = figure.subfigures(2, 1, height_ratios=(1.6, 1))
    targets = [result for result in comparison.results if result.codebooks()]
    grid = rows[0].subplots(len(targets), 2, sharex=True, sharey=True)
    for result, line in zip(targets, grid, strict=True):
        for utterance, axes in enumerate(line):
            _draw_guesses(axes, result, utterance)
        line[0].set_ylabel(f"{result.name}\nkHz (mel scale)", fontsize=9)
    for axes in grid[-1]:
        axes.set_xlabel("s", fontsize=9)
    rows[0].suptitle(
        "Held-out speech in noise. Hidden frames: green where the code is guessed right, grey where it is not",
        fontsize=10,
    )
    panels = rows[1].subplots(1, 2, sharey=True)
    headings = ("vowels found in frames that are heard (%)", "in hidden frames (%)")
    for axes, measure, heading in zip(panels, MEASURES[2:], headings, strict=True):
        dots.panel(axes, [result.values(measure.key) for result in comparison.results], heading)
    dots.name_rows(panels[0], [result.name for result in comparison.results])
    return figure


def _draw_guesses(axes: Axes, result: Result, utterance: int) -> None:
    mask, right = (of_all[utterance] for of_all in result.trials[0].shown)
    frames = corpora(0)[1].noisy[utterance].unflatten(-1, (STACKED, BANDS)).flatten(0, 1)
    frames = torch.where(mask.repeat_interleave(STACKED)[:, None], torch.nan, frames)
    axes.imshow(frames.T.numpy(), origin="lower", aspect="auto", extent=(0, SECONDS, 0, BANDS), cmap="magma")
    length = SECONDS / len(mask)
    for frame in mask.nonzero().flatten().tolist():
        color = GUESSED if right[frame] else PALE
        axes.axvspan(frame * length, (frame + 1) * length, color=color, linewidth=0)
    ticks = (0, 1, 2, 4, 8)  # kHz
    axes.set_yticks([BANDS * math.log(1 + khz / 0.7) / math.log(1 + 8 / 0.7) for khz in ticks], ticks)


def main(quantizer: QuantizerName = "vq", steps: Steps = 500, seeds: Seeds = 3, out: Out = FOLDER) -> None:
    """Train an encoder of speech twice from the same weights: to guess codes of BEST-RQ's random projection, and
    those of another quantizer.
    """
    console = Console()
    runs = [
        ("no encoder", lambda seed, _: Trial(vowels(lambda frames: frames, seed))),
        ("untrained", lambda seed, _: Trial(vowels(build(seed).eval().features, seed))),
        (PUBLISHED, lambda seed, train: run(PUBLISHED, seed, train)),
        (quantizer, lambda seed, train: run(quantizer, seed, train)),
    ]
    comparison = compare(runs, MEASURES, steps, seeds, console)
    write(out, "masked", comparison, picture(comparison), console)


if __name__ == "__main__":
    typer.run(main)
