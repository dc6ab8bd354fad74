"""Which training aids keep the coarse scales of a multi-scale tokenizer in use, over several seeds."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import machine
from benchmarks.chain import multiscale
from benchmarks.chain.comparison import quality
from benchmarks.chain.comparison_settings import COMPARING, RECIPE, Comparing
from benchmarks.chain.progress import Bars
from benchmarks.chain.settings import DIGITS, PHOTOGRAPHS
from benchmarks.chain.sources import PhotographSource, Source, open_source
from benchmarks.crops import random_crops
from benchmarks.machine import caption
from benchmarks.plots import PALETTE, ruled, save, titled
from benchmarks.sheets import Sheet, markdown_rows

PICTURE = "scales.png"
AVERAGES = "var:quantizer=ema_vq:decay=0.9"
RECIPES = {
    "shared codebook, learned by the loss": "var",
    "shared codebook, averages": AVERAGES,
    "shared codebook, averages, replacement": f"{AVERAGES}:replace=dead",
    "codebook per scale, averages": f"{AVERAGES}:shared=False",
    "codebook per scale, averages, warm start": f"{AVERAGES}:shared=False:warm_start=True",
    "codebook per scale, averages, replacement": RECIPE,
}
"""Variants from VAR's own form, whose codebook learns by a loss, to the recipe of the documentation."""

STEPS = {DIGITS: 600, PHOTOGRAPHS: 400}
VARIED = ("quantizer", "seed")  # settings that differ from result to result
IMAGES = 1500  # on which codes are counted
NOTE = (
    "Codes used: share of a scale's codes that occur in images drawn as for training, the lowest and the highest "
    "of all seeds; the JSON also has held-out images, of which there are fewer. PSNR on held-out images. Moving "
    "averages: decay 0.9. Replacement: of dead codes with vectors of the batch, after each step. Warm start: "
    "k-means, scale by scale, before the first step."
)


def settings(data: str, seed: int, variant: str, *, share: float = 1.0, images: str | None = None) -> Comparing:
    """Return the comparison's settings of a data set with another quantizer, seed and number of steps."""
    comparing = COMPARING[data]
    steps = max(1, round(STEPS[data] * share))
    autoencoding = replace(comparing.autoencoding, quantizer=variant, seed=seed, steps=steps, images=images)
    return replace(comparing, autoencoding=autoencoding)


def held_out(source: Source) -> torch.Tensor:
    """Return held-out images with the side that the models are trained on: all digits, or crops of photographs."""
    if isinstance(source, PhotographSource):
        generator = torch.Generator().manual_seed(0)
        return random_crops(source.photographs.held_out, IMAGES, generator, source.prior_side)
    return source.held_out().images


def drawn(source: Source) -> torch.Tensor:
    """Return images drawn as for training."""
    return source.batch(IMAGES, source.prior_side, torch.Generator().manual_seed(0)).images


def run(
    data: str,
    seeds: Sequence[int],
    out: Path,
    bars: Bars,
    *,
    share: float = 1.0,
    images: str | None = None,
    device: str = "cpu",
    fresh: bool = False,
) -> dict[str, Any]:
    """Train each recipe with each seed, or load finished trainings, and return the record."""
    given = settings(data, seeds[0], "var", share=share, images=images)
    source = open_source(given.autoencoding)
    results = list(_results(data, seeds, source, out, bars, share, images, device, fresh))
    return {
        "benchmark": "scales",
        **machine.record(torch.device(device)),
        "data": {"name": data, **source.describe()},
        "settings": {key: value for key, value in asdict(given.autoencoding).items() if key not in VARIED},
        "seeds": [*seeds],
        "results": results,
    }


def _results(
    data: str,
    seeds: Sequence[int],
    source: Source,
    out: Path,
    bars: Bars,
    share: float,
    images: str | None,
    device: str,
    fresh: bool,
) -> Iterator[dict[str, Any]]:
    counted, shown = drawn(source), held_out(source)
    for position, (name, variant) in enumerate(RECIPES.items()):
        for seed in seeds:
            given = settings(data, seed, variant, share=share, images=images)
            folder = out / data / f"{position}-seed-{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            with bars.stage(f"{name}, seed {seed}", given.autoencoding.steps, "loss") as on_step:
                trained = multiscale.fit(given, source, folder, on_step, device=device, fresh=fresh)
            copy = multiscale.decode(trained, multiscale.encode(trained, shown))
            yield {
                "recipe": name,
                "variant": variant,
                "seed": seed,
                "psnr_db": quality(shown, copy),
                "scales": multiscale.usage(trained, counted),
                "held_out_scales": multiscale.usage(trained, shown),
            }


def sheet(record: dict[str, Any]) -> Sheet:
    """Return a table with a row per recipe, and a column per scale."""
    scales = record["results"][0]["scales"]
    headings = ["", *(f"{_size(scale)}, {scale['vectors']:,}" for scale in scales), "PSNR dB"]
    body = []
    for recipe in dict.fromkeys(result["recipe"] for result in record["results"]):
        own = [result for result in record["results"] if result["recipe"] == recipe]
        columns = zip(*(_shares(result) for result in own), strict=True)
        quality_range = _range([result["psnr_db"] for result in own], ".1f")
        body.append([recipe, *(_range(column, ".0f") for column in columns), quality_range])
    codes, seeds = scales[0]["codes"], len(record["seeds"])
    title = f"{record['data']['name']}: % of {codes} codes used, by scale and its number of vectors, {seeds} seeds"
    return Sheet(title, headings, body)


def markdown(record: dict[str, Any]) -> str:
    """Return the table with its explanation, the picture, and a line on the machine."""
    table = sheet(record)
    lines = [f"**{table.title}**", "", *markdown_rows(table), "", NOTE, ""]
    return "\n".join([*lines, f"![Codes used by scale]({PICTURE})", "", f"{caption(record)}."]) + "\n"


def draw(folder: Path, record: dict[str, Any]) -> Path:
    """Draw the share of codes that each scale uses: a bar for each recipe, and a line for the range of seeds."""
    scales = record["results"][0]["scales"]
    title = f"Codes that each scale uses, {record['data']['name']}"
    figure = titled(title, caption(record), (10, 4.2))
    axes = figure.subplots()
    recipes = list(dict.fromkeys(result["recipe"] for result in record["results"]))
    width = 0.85 / len(recipes)
    for number, (color, recipe) in enumerate(zip(PALETTE, recipes, strict=False)):
        own = [_shares(result) for result in record["results"] if result["recipe"] == recipe]
        columns = list(zip(*own, strict=True))
        middle = [sum(column) / len(column) for column in columns]
        places = [scale + (number - (len(recipes) - 1) / 2) * width for scale in range(len(scales))]
        axes.bar(places, middle, width, color=color, label=recipe)
        axes.vlines(places, list(map(min, columns)), list(map(max, columns)), color="black", linewidth=1)
    axes.set_xticks(range(len(scales)), [_size(scale) for scale in scales])
    axes.set(xlabel="scale", ylabel="codes used (%)", ylim=(0, 103))
    axes.set_axisbelow(True)
    ruled(axes)
    figure.legend(loc="outside right center", frameon=False, fontsize=9)
    save(folder / PICTURE, figure)
    return folder / PICTURE


def _shares(result: dict[str, Any]) -> list[float]:
    return [100 * scale["used"] / scale["codes"] for scale in result["scales"]]


def _range(values: Sequence[float], form: str) -> str:
    low, high = f"{min(values):{form}}", f"{max(values):{form}}"
    return low if low == high else f"{low}–{high}"


def _size(scale: dict[str, Any]) -> str:
    return "×".join(map(str, scale["size"]))
