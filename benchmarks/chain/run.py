"""The chain for digits, photographs and photographs with two levels, and samples from each kind of model."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.chain import generative, pictures, stages
from benchmarks.chain.generative import Row
from benchmarks.chain.pictures import Strip
from benchmarks.chain.progress import Bars
from benchmarks.chain.settings import AUTOENCODING, DIGITS, FITTING, PHOTOGRAPHS, Autoencoding, Fitting

LATENT_STEPS = 1000
ROWS = 3  # rows of samples in each run
SHOWN = 10  # samples per model in the comparison


@dataclass(frozen=True)
class Plan:
    """One run through all stages."""

    name: str
    folder: str
    autoencoding: Autoencoding
    fitting: Fitting


def plans(images: str | None, seed: int, *, share: float = 1.0) -> list[Plan]:
    """Return the runs of the chain. share: the share of the default training steps."""
    digits, photographs = AUTOENCODING[DIGITS], replace(AUTOENCODING[PHOTOGRAPHS], images=images)
    given = [
        Plan("digits", "digits", digits, FITTING[DIGITS]),
        Plan("photographs", "photographs", photographs, FITTING[PHOTOGRAPHS]),
        Plan("photographs, two levels", "two-levels", replace(photographs, levels=2), FITTING[PHOTOGRAPHS]),
    ]
    return [
        replace(
            plan,
            autoencoding=replace(plan.autoencoding, seed=seed, steps=shortened(plan.autoencoding.steps, share)),
            fitting=replace(plan.fitting, seed=seed, steps=shortened(plan.fitting.steps, share)),
        )
        for plan in given
    ]


def shortened(steps: int, share: float) -> int:
    """Return the share of the steps, at least one."""
    return max(1, round(steps * share))


def run(
    given: list[Plan], out: Path, bars: Bars, *, latent_steps: int, seed: int, device: str, fresh: bool = False
) -> tuple[list[dict[str, Any]], list[Row]]:
    """Return the record of each plan, and the samples of digits from each kind of model, drawn in samples.png."""
    records, rows = [], []
    for plan in given:
        trained, fitted, record = stages.run(
            plan.name,
            plan.autoencoding,
            plan.fitting,
            out / plan.folder,
            bars,
            rows=ROWS,
            device=device,
            fresh=fresh,
        )
        records.append(record)
        if plan.autoencoding.data == DIGITS:
            bars.say("digits: samples of an autoencoder and a VAE beside those of the prior")
            latents = generative.latent_samples(out / plan.folder, latent_steps, seed, fresh=fresh)
            rows = generative.rows(latents, trained, fitted, seed=seed, device=device)
            pictures.write(out / "samples.png", strips(rows))
    return records, rows


def strips(rows: list[Row]) -> list[Strip]:
    """Return ten images of each model, and three rows of the last model, the prior."""
    shown = [Strip(row.name, row.images[:SHOWN]) for row in rows[:-1]]
    return [*shown, *pictures.in_rows(rows[-1].images[: 3 * SHOWN], SHOWN, rows[-1].name)]
