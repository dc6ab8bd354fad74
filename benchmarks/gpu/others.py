"""What the stage "speed" times besides single searches and training steps: what is built on them.

Tuning of a search for clustered data, several nearest codes, k-means, and the trainings of `make bench`.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from subprocess import STDOUT, run
from typing import Any

import torch
from torch import Tensor

import quantizers
from benchmarks.__main__ import missing_packages
from benchmarks.autoencoder import build
from benchmarks.gpu.graphs import as_graph
from benchmarks.gpu.implementations import k_nearest_codes, measured_ways, use_implementation
from benchmarks.gpu.stages import Numbers, Place
from benchmarks.kernels.rivals import CDIST, OURS, Rival, Work, usable
from benchmarks.kernels.shapes import Shape, draw
from benchmarks.kernels.timing import LEAST, first_line, interleave
from benchmarks.machine import ROOT
from benchmarks.training import Recipe, train
from benchmarks.variants import COMPARED, aids

TUNE, K_NEAREST, FIT, BENCH = "tune ", "nearest codes ", "fit ", "make bench"
SHAPES = {
    TUNE: (Shape(262144, 16384, 32), Shape(16384, 16384, 64)),
    K_NEAREST: (Shape(16384, 16384, 64), Shape(32768, 8192, 8)),
    FIT: (Shape(65536, 4096, 64),),
}
STEPS, FEWEST_STEPS = 100, 2  # of each training of `make bench`; the second in the interpreter
INTERPRETED = ("vq", "fsq")  # what is trained there

CDIST_TOPK = "cdist + topk"
# `python -m benchmarks utilization` without the other commands, which import more than this one needs.
ALONE = "import typer; from benchmarks.cli.utilization import command; typer.run(command)"
CODES_OF_A_CLUSTER = 64
SPREAD = 0.1  # of a cluster, whose centre is normal
NEAREST = 8  # codes of a vector
PASSES, FEWEST_PASSES = 8, 2  # of k-means over all vectors; the second in the interpreter
BUDGET_S = 0.1


def clustered(shape: Shape, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return vectors [N, D] and codes [K, D] around the same centres, much nearer to these than these to each
    other, as encoders make them."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(-(-shape.k // CODES_OF_A_CLUSTER), shape.d, generator=generator)

    def around(count: int) -> Tensor:
        chosen = torch.randint(len(centres), (count,), generator=generator)
        return (centres[chosen] + SPREAD * torch.randn(count, shape.d, generator=generator)).to(device)

    return around(shape.n), around(shape.k)


def tune(shape: Shape, place: Place) -> Numbers:
    """Return the milliseconds of each way to run a search, and how many rows got another result than by the first.

    In the exact mode the ways must not differ in any row.
    """
    x, codebook = clustered(shape, place.device)
    with use_implementation("triton"):
        times, different = measured_ways(x[None], codebook[None], repetitions=1 if place.interpreted else 5)
    return {"ways_ms": times, "different": different}


def k_nearest(shape: Shape, place: Place) -> Numbers:
    ours = Rival(OURS, _prepare_k_nearest)
    return _times([ours, as_graph(ours), Rival(CDIST_TOPK, _prepare_topk, matrices=2)], shape, place)


def _prepare_k_nearest(x: Tensor, codebook: Tensor) -> Work:
    return lambda: k_nearest_codes(x[None], codebook[None], NEAREST)


def _prepare_topk(x: Tensor, codebook: Tensor) -> Work:
    return lambda: tuple(torch.cdist(x, codebook).topk(NEAREST, largest=False))


def fit(shape: Shape, place: Place) -> Numbers:
    """Time Lloyd's iterations from the same codes, by this library and by cdist."""
    passes = FEWEST_PASSES if place.interpreted else PASSES
    rivals = [
        Rival(OURS, partial(_prepare_fit, passes=passes)),
        Rival(CDIST, partial(_prepare_lloyd, passes=passes), matrices=2),
    ]
    return _times(rivals, shape, place)


def _prepare_fit(x: Tensor, codebook: Tensor, passes: int) -> Work:
    size, dim = codebook.shape
    quantizer = quantizers.VectorQuantizer(dim, size).to(x.device)

    def run() -> tuple[Tensor, ...]:
        quantizer.set_codebook(codebook)
        quantizers.fit(quantizer, x, method="lloyd", epochs=passes, seeds="codebook")
        return (quantizer.codebook.detach(),)

    return run


def _prepare_lloyd(x: Tensor, codebook: Tensor, passes: int) -> Work:
    """Prepare the plain loop. A code without vectors stays."""

    def run() -> tuple[Tensor, ...]:
        codes = codebook
        for _ in range(passes):
            indices = torch.cdist(x, codes).argmin(-1)
            counts = torch.bincount(indices, minlength=len(codes))[:, None]
            sums = torch.zeros_like(codes).index_add_(0, indices, x)
            codes = (sums / counts).where(counts > 0, codes)
        return (codes,)

    return run


def _times(rivals: Sequence[Rival], shape: Shape, place: Place) -> Numbers:
    fitting, _ = usable(rivals, place.device)
    least = 2 if place.interpreted else LEAST
    with use_implementation("triton"):
        times, failures = interleave(fitting, *draw(shape, place.device), budget_s=BUDGET_S, least=least)
    return {"times_ms": {name: asdict(each) for name, each in times.items()}, "failures": failures}


def bench(place: Place) -> Numbers:
    """Run `make bench` on the device, with few steps of each training.

    Without the packages of its pictures and photographs, only its trainings run, on images that are drawn. It
    imports matplotlib, pillow and scikit-image, with what these need. Of scipy it needs no more than _external,
    _lib, linalg, ndimage and special, of scikit-image's data its photographs, and of scikit-learn those alone, in
    sklearn/datasets/images: with Python 3.12, 28 MiB as a .tar.xz to unpack in a folder on PYTHONPATH.
    """
    if missing := missing_packages():
        return {"left_out": [f"the table of make bench is left out: {', '.join(missing)} are not installed"]} | (
            train_all(place)
        )
    steps, out = FEWEST_STEPS if place.interpreted else STEPS, place.out / "bench"
    options = ["--device", place.device.type, "--steps", str(steps), "--out", str(out), "--fresh"]
    if place.interpreted:
        options += ["--quantizers", ",".join(INTERPRETED)]
    command = [sys.executable, "-c", ALONE, *options]
    log = place.out / "processes" / "bench.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        done = run(command, cwd=ROOT, stdout=file, stderr=STDOUT, check=False)
    if done.returncode:
        raise RuntimeError(f"make bench ended with code {done.returncode}: {log.read_text()[-600:]}")
    return {"table": (out / "utilization.md").read_text()}


def train_all(place: Place) -> Numbers:
    """Train the autoencoder around each quantizer, and return its mean squared error after the last step."""
    errors: dict[str, float] = {}
    failures: dict[str, str] = {}
    recipe = Recipe(device=place.device.type, steps=FEWEST_STEPS if place.interpreted else STEPS)
    for name in INTERPRETED if place.interpreted else COMPARED:
        try:
            errors[name] = _trained(name, recipe)
        except Exception as error:  # the others are trained all the same
            failures[name] = first_line(error)
    return {"mse": errors, "failures": failures}


def _trained(name: str, recipe: Recipe) -> float:
    model = build(name, dim=recipe.dim, codebook_size=recipe.codebook_size, seed=recipe.seed).to(recipe.device)
    curves = train(model, iter(partial(_images, recipe.batch_size), None), recipe, lambda *_: None, aids(name))
    return float(curves.mse[-1])


def _images(count: int) -> Tensor:
    """Return smooth images [count, 3, 32, 32] in [−1, 1]."""
    coarse = 2 * torch.rand(count, 3, 5, 5) - 1
    return torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bilinear", align_corners=True)


RUN: dict[str, Callable[[Shape, Place], dict[str, Any]]] = {TUNE: tune, K_NEAREST: k_nearest, FIT: fit}
