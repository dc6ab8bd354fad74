"""Each prior of the comparison behind one interface, with the autoencoder whose codes it predicts."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from benchmarks.chain import draws, levels, multiscale, priors
from benchmarks.chain.comparison_settings import Comparing
from benchmarks.chain.comparison_training import next_scale_bits
from benchmarks.chain.draws import Filters
from benchmarks.chain.multiscale import MultiScaleTrained
from benchmarks.chain.priors import Fitted
from benchmarks.chain.reconstruction import Trained
from benchmarks.chain.sources import Batch
from benchmarks.models.masked import MaskedTransformer, fill
from benchmarks.models.next_scale import NextScaleTransformer, sample_scales


class Draw(Protocol):
    """Samples images in [−1, 1] on the CPU: [count, C, side, side]."""

    def __call__(self, labels: Tensor | None, count: int, filters: Filters, seed: int) -> Tensor: ...


@dataclass(frozen=True)
class Candidate:
    """One prior.

    codes   number of codes that make up an image
    passes  forward passes for a sample: of the whole model, or of a PixelCNN's and a raster transformer's part for
            one code
    draw    samples images
    copy    encodes and decodes images, with the autoencoder
    bits    returns −log₂ p of all codes of a batch, given the labels; None without a likelihood
    """

    name: str
    prior: nn.Module
    codes: int
    passes: int
    draw: Draw
    copy: Callable[[Tensor], Tensor]
    bits: Callable[[Batch], float] | None


def raster(name: str, trained: Trained, fitted: Fitted, device: str) -> Candidate:
    """Return a prior that predicts one code after another."""
    codes = _codes(trained)

    def draw(labels: Tensor | None, count: int, filters: Filters, seed: int) -> Tensor:
        return draws.draw(trained, fitted, labels, count, filters=filters, seed=seed, device=device)

    def bits(batch: Batch) -> float:
        return sum(priors.bits(fitted, levels.encode(trained.model, batch.images), batch))

    (prior,) = fitted.priors
    return Candidate(name, prior, codes, codes, draw, _copier(trained), bits)


def masked(prior: MaskedTransformer, comparing: Comparing, trained: Trained, device: str) -> Candidate:
    """Return the prior that fills a grid in a few passes, at most one for each code."""
    codes = _codes(trained)
    passes = min(comparing.passes, codes)
    side = trained.source.prior_side
    (grid,) = levels.grids(trained.model, side, side)

    def draw(labels: Tensor | None, count: int, filters: Filters, seed: int) -> Tensor:
        filled = fill(
            prior,
            count,
            grid,
            None if labels is None else labels.to(device),
            passes=passes,
            temperature=filters.temperature,
            top_k=filters.top_k,
            top_p=filters.top_p,
            generator=torch.Generator(device).manual_seed(seed),
        )
        return levels.decode(trained.model, (filled,))

    return Candidate("masked", prior, codes, passes, draw, _copier(trained), None)


def next_scale(
    prior: NextScaleTransformer, trained: MultiScaleTrained, device: str, guidance: float = 0.0
) -> Candidate:
    """Return the prior that predicts one scale after another.

    Guided samples have a distribution of their own, whose likelihood is not computed.
    """

    def draw(labels: Tensor | None, count: int, filters: Filters, seed: int) -> Tensor:
        tokens = sample_scales(
            prior,
            trained.model.quantizer,
            count,
            None if labels is None else labels.to(device),
            guidance=guidance,
            temperature=filters.temperature,
            top_k=filters.top_k,
            top_p=filters.top_p,
            generator=torch.Generator(device).manual_seed(seed),
        )
        return multiscale.decode(trained, tokens)

    def copy(images: Tensor) -> Tensor:
        return multiscale.decode(trained, multiscale.encode(trained, images))

    @torch.no_grad()
    def bits(batch: Batch) -> float:
        chunks = zip(
            batch.images.split(levels.AT_ONCE),
            [None] * len(batch.images) if batch.labels is None else batch.labels.split(levels.AT_ONCE),
            strict=False,
        )
        return sum(next_scale_bits(prior, trained, Batch(*chunk)).double().sum().item() for chunk in chunks)

    lengths = trained.model.lengths(trained.grid)
    name = f"next-scale, guidance {guidance:g}" if guidance else "next-scale"
    return Candidate(name, prior, lengths[-1], len(lengths), draw, copy, None if guidance else bits)


def _copier(trained: Trained) -> Callable[[Tensor], Tensor]:
    return lambda images: levels.decode(trained.model, levels.encode(trained.model, images))


def _codes(trained: Trained) -> int:
    """Return the number of codes of an image with the side of the priors."""
    side = trained.source.prior_side
    (grid,), (sizes,) = levels.grids(trained.model, side, side), levels.sizes_of(trained.model)
    return math.prod(grid) * len(sizes)
