"""The stages of the chain as the commands call them: with a progress bar, a record of numbers, and pictures."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from benchmarks.chain import draws, levels, pictures, priors, rates, reconstruction
from benchmarks.chain.draws import Filters
from benchmarks.chain.pictures import Strip
from benchmarks.chain.priors import Fitted
from benchmarks.chain.progress import Bars
from benchmarks.chain.reconstruction import Trained
from benchmarks.chain.settings import Autoencoding, Fitting
from benchmarks.files import write_bytes

SHOWN = 10  # held-out images in a picture
LEVEL_NAMES = {1: ("codes",), 2: ("top", "bottom")}

CODED = "held_out.codes"


def reconstruct(
    settings: Autoencoding, folder: Path, bars: Bars, *, device: str, fresh: bool = False
) -> tuple[Trained, dict[str, Any]]:
    """Train the autoencoder, measure it, and draw reconstructions.png."""
    with bars.stage("autoencoder", settings.steps, "loss") as on_step:
        trained = reconstruction.fit(settings, folder, on_step, device=device, fresh=fresh)
    numbers, original, copy = reconstruction.measure(trained)
    strips = [
        Strip(name, images[:SHOWN].float() / 127.5 - 1)
        for name, images in (("original", original), (f"{numbers['psnr_db']:.2f} dB", copy))
    ]
    pictures.write(folder / "reconstructions.png", strips)
    return trained, numbers


def fit_priors(
    settings: Fitting, trained: Trained, folder: Path, bars: Bars, *, device: str, fresh: bool = False
) -> tuple[Fitted, list[dict[str, Any]]]:
    """Fit a prior to each level, and measure its bits per code on held-out images."""
    names = LEVEL_NAMES[trained.settings.levels]
    for level, name in enumerate(names):
        with bars.stage(f"prior of {name}", settings.steps, "bits/code") as on_step:
            priors.fit(settings, trained, level, folder, on_step, device=device, fresh=fresh)
    fitted = priors.load(folder, trained, device)
    batch = rates.to_code(trained, fitted)
    codes = levels.encode(trained.model, batch.images)
    held_out = priors.bits(fitted, codes, batch)
    return fitted, [
        {
            "level": name,
            "training_bits": float(losses[-100:].mean()),
            "held_out_bits": bits / level_codes.numel(),
        }
        for name, losses, bits, level_codes in zip(names, fitted.losses, held_out, codes, strict=True)
    ]


def sample(
    trained: Trained, fitted: Fitted, folder: Path, *, rows: int, filters: Filters, seed: int, device: str
) -> Tensor:
    """Sample rows of ten images; for digits, each column is a class. Writes samples.png."""
    labels = draws.grid_labels(trained, rows)
    images = draws.draw(trained, fitted, labels, rows * draws.COLUMNS, filters=filters, seed=seed, device=device)
    pictures.write(folder / "samples.png", pictures.in_rows(images, draws.COLUMNS))
    return images


def code(trained: Trained, fitted: Fitted, folder: Path, bars: Bars, *, device: str) -> dict[str, Any]:
    """Compress the held-out images to a file, decode it, and report its size next to those of other methods."""
    batch = rates.to_code(trained, fitted)
    grids = levels.grids(trained.model, *batch.images.shape[2:])
    total = sum(
        height * width * len(sizes)
        for (height, width), sizes in zip(grids, levels.sizes_of(trained.model), strict=True)
    )
    with bars.stage("encoding and decoding", 2 * total) as on_step:
        coded = rates.code(trained, fitted, batch, device=device, on_step=on_step)
    write_bytes(folder / CODED, coded.data)
    return coded.record()


def run(
    name: str,
    autoencoding: Autoencoding,
    fitting: Fitting,
    folder: Path,
    bars: Bars,
    *,
    rows: int,
    device: str,
    fresh: bool = False,
) -> tuple[Trained, Fitted, dict[str, Any]]:
    """Run all stages on one kind of data, and return its record."""
    folder.mkdir(parents=True, exist_ok=True)
    bars.say(f"{name}: autoencoder, prior, samples, codes as bytes")
    trained, reconstructed = reconstruct(autoencoding, folder, bars, device=device, fresh=fresh)
    fitted, fit = fit_priors(fitting, trained, folder, bars, device=device, fresh=fresh)
    sample(trained, fitted, folder, rows=rows, filters=Filters(), seed=autoencoding.seed, device=device)
    coded = code(trained, fitted, folder, bars, device=device)
    record = {
        "name": name,
        "settings": {"autoencoder": asdict(autoencoding), "prior": asdict(fitting)},
        "data": trained.source.describe(),
        "reconstruction": reconstructed,
        "priors": fit,
        "coding": coded,
    }
    return trained, fitted, record
