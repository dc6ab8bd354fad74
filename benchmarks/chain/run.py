"""The chain for digits, photographs and photographs with two levels, samples from each kind of model, and
priors compared.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from typing_extensions import Self

from benchmarks.chain import comparison, generative, pictures, stages, text_stage
from benchmarks.chain.comparison_settings import COMPARING, Comparing
from benchmarks.chain.generative import Row
from benchmarks.chain.pictures import Strip
from benchmarks.chain.progress import Bars
from benchmarks.chain.settings import AUTOENCODING, DIGITS, FITTING, PHOTOGRAPHS, Autoencoding, Fitting
from benchmarks.chain.text_stage import Captioning

LATENT_STEPS = 1000
ROWS = 3  # rows of samples in each run
SHOWN = 10  # samples per model in the comparison of samples

Settings = TypeVar("Settings", Autoencoding, Fitting, Captioning)


@dataclass(frozen=True)
class Plan:
    """One run through all stages."""

    name: str
    folder: str
    autoencoding: Autoencoding
    fitting: Fitting
    comparing: Comparing | None = None
    captioning: Captioning | None = None

    def shortened(self, share: float, seed: int) -> Self:
        """Return the plan with this share of all training steps, and this seed for all trainings."""
        comparing = self.comparing
        if comparing is not None:
            autoencoding = _shortened(comparing.autoencoding, share, seed)
            fitting = _shortened(comparing.fitting, share, seed)
            comparing = replace(comparing, autoencoding=autoencoding, fitting=fitting)
        captioning = self.captioning and _shortened(self.captioning, share, seed)
        return replace(
            self,
            autoencoding=_shortened(self.autoencoding, share, seed),
            fitting=_shortened(self.fitting, share, seed),
            comparing=comparing,
            captioning=captioning,
        )


class Results(NamedTuple):
    """What the chain found.

    parts        the record of each plan
    samples      of digits, from each kind of model
    comparisons  the record of each comparison of priors; their seconds differ from one run to the next
    captions     the record of each prior over captions and codes
    """

    parts: list[dict[str, Any]]
    samples: list[Row]
    comparisons: list[dict[str, Any]]
    captions: list[dict[str, Any]]


def plans(images: str | None, seed: int, *, share: float = 1.0) -> list[Plan]:
    """Return the runs of the chain. share: the share of the default training steps."""
    digits, photographs = AUTOENCODING[DIGITS], replace(AUTOENCODING[PHOTOGRAPHS], images=images)
    pyramids = COMPARING[PHOTOGRAPHS]
    pyramids = replace(pyramids, autoencoding=replace(pyramids.autoencoding, images=images))
    given = [
        Plan("digits", "digits", digits, FITTING[DIGITS], COMPARING[DIGITS], Captioning()),
        Plan("photographs", "photographs", photographs, FITTING[PHOTOGRAPHS], pyramids),
        Plan("photographs, two levels", "two-levels", replace(photographs, levels=2), FITTING[PHOTOGRAPHS]),
    ]
    return [plan.shortened(share, seed) for plan in given]


def shortened(steps: int, share: float) -> int:
    """Return the share of the steps, at least one."""
    return max(1, round(steps * share))


def _shortened(settings: Settings, share: float, seed: int) -> Settings:
    return replace(settings, steps=shortened(settings.steps, share), seed=seed)


def run(
    given: list[Plan], out: Path, bars: Bars, *, latent_steps: int, seed: int, device: str, fresh: bool = False
) -> Results:
    """Run every plan: its stages, for digits the samples of each kind of model in samples.png, the comparison of
    priors, and the prior over captions.
    """
    results = Results([], [], [], [])
    for plan in given:
        folder = out / plan.folder
        trained, fitted, record = stages.run(
            plan.name, plan.autoencoding, plan.fitting, folder, bars, rows=ROWS, device=device, fresh=fresh
        )
        results.parts.append(record)
        if plan.autoencoding.data == DIGITS:
            bars.say("digits: samples of an autoencoder and a VAE beside those of the prior")
            latents = generative.latent_samples(folder, latent_steps, seed, fresh=fresh)
            results.samples.extend(generative.rows(latents, trained, fitted, seed=seed, device=device))
            pictures.write(out / "samples.png", strips(results.samples))
        if plan.comparing is not None:
            compared = comparison.run(
                plan.name, plan.comparing, trained, fitted, folder, bars, device=device, fresh=fresh
            )
            results.comparisons.append(compared)
        if plan.captioning is not None:
            bars.say(f"{plan.name}: samples for captions")
            captioned = text_stage.run(trained, plan.captioning, folder, bars, device=device, fresh=fresh)
            results.captions.append(captioned)
    return results


def strips(rows: list[Row]) -> list[Strip]:
    """Return ten images of each model, and three rows of the last model, the prior."""
    shown = [Strip(row.name, row.images[:SHOWN]) for row in rows[:-1]]
    return [*shown, *pictures.in_rows(rows[-1].images[: 3 * SHOWN], SHOWN, rows[-1].name)]
