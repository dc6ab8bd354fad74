"""Normalized FSQ as laws: what its statistics become, what they do to levels and gradients, and stages of it."""

import copy
import math

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from quantizers import FSQ, NormalizedFSQ, create
from quantizers.scalar.normalized_fsq import EPSILON, WIDTH
from tests.cases import assert_same_state, normal, state_of

EPS = torch.finfo(torch.float64).eps

level_lists = st.lists(st.integers(2, 17), min_size=1, max_size=4)
seeds = st.integers(0, 2**31)
few = settings(max_examples=10, phases=(Phase.explicit, Phase.generate))


def spread(seed: int, n: int, channels: int) -> Tensor:
    """Vectors whose channels differ in mean and deviation."""
    scales = torch.logspace(-1, 1, channels, dtype=torch.float64)
    return scales * (normal(seed, n, channels) + normal(seed + 1, channels))


# Statistics


@few
@given(levels=level_lists, seed=seeds, n=st.integers(0, 30), decay=st.sampled_from([0.0, 0.5, 0.99, 1.0]))
def test_a_step_moves_the_statistics_by_its_vectors(levels: list[int], seed: int, n: int, decay: float) -> None:
    """The moments about the mean before the step; masked vectors, and those that are not finite, do not count."""
    channels = len(levels)
    quantizer = NormalizedFSQ(channels, levels, decay=decay).double()
    count, mean, variance = 0.0, torch.zeros(channels).double(), torch.ones(channels).double()
    for step in range(3):
        z = spread(seed + 10 * step, n, channels)
        x, mask = torch.cat([z, 1e3 * z, torch.full((1, channels), torch.nan).double()]), torch.ones(2 * n + 1)
        mask[n : 2 * n] = 0
        quantizer(x, mask.bool())
        if n and decay < 1:
            count = decay * count + (1 - decay) * n
            share = (1 - decay) * n / count
            off = z - mean
            variance = (1 - share) * variance + share * (off.square().mean(0) - share * off.mean(0).square())
            mean = mean + share * off.mean(0)
    tolerance = {"rtol": (n + 16) * EPS, "atol": (n + 16) * 32**2 * EPS}
    torch.testing.assert_close(quantizer.moments, torch.stack([mean, variance]), **tolerance)
    torch.testing.assert_close(quantizer.seen, torch.tensor(count, dtype=torch.float64), **tolerance)


@few
@given(levels=level_lists, seed=seeds)
def test_statistics_that_start_from_data_are_those_of_the_data(levels: list[int], seed: int) -> None:
    quantizer, z = NormalizedFSQ(len(levels), levels).double(), spread(seed, 40, len(levels))
    quantizer.initialize_from(z)
    expected = torch.stack([z.mean(0), z.var(0, correction=0)])
    torch.testing.assert_close(quantizer.moments, expected, rtol=256 * EPS, atol=2**12 * EPS)


def test_evaluation_and_frozen_statistics_stay() -> None:
    quantizer, z = NormalizedFSQ(2, [5, 4]).double(), spread(0, 20, 2)
    before = state_of(quantizer)
    quantizer.eval()(z)
    quantizer.train().encode(z)
    quantizer.freeze()(z)
    assert_same_state(state_of(quantizer), before)
    quantizer.unfreeze()(z)
    assert not torch.equal(quantizer.moments, before["moments"])


def test_a_channel_beyond_float32_keeps_its_statistics() -> None:
    quantizer = NormalizedFSQ(2, [5, 5])
    before = state_of(quantizer)["moments"]
    out = quantizer(torch.tensor([[1e30, 2.0], [-1e30, 8.0]]))
    assert out.quantized.isfinite().all()
    assert torch.equal(quantizer.moments[:, 0], before[:, 0])
    assert (quantizer.moments[:, 1] != before[:, 1]).all()


# Levels


@few
@given(levels=level_lists, seed=seeds, bound=st.sampled_from(["clamp", "tanh", "ifsq"]))
def test_it_is_fsq_between_two_maps(levels: list[int], seed: int, bound: str) -> None:
    channels = len(levels)
    quantizer = NormalizedFSQ(channels, levels, bound=bound).double()  # type: ignore[arg-type]
    plain, z = FSQ(channels, levels, bound=bound).double(), spread(seed, 20, channels)  # type: ignore[arg-type]
    quantizer(z)
    quantizer.eval()
    counts = torch.tensor(levels).double()
    step = WIDTH * counts.log().sqrt() / counts * (quantizer.moments[1] + EPSILON).sqrt()
    center, scale = quantizer.moments[0] + (1 - counts % 2) * step / 2, (counts / 2).floor() * step
    out, expected = quantizer(z), plain((z - center) / scale)
    sure = ((plain._bounded((z - center) / scale) * (counts / 2).floor()) % 1 - 0.5).abs() > 1e-9
    sure = sure.all(-1)
    assert torch.equal(out.indices[sure], expected.indices[sure])
    torch.testing.assert_close(
        out.quantized[sure], (expected.quantized * scale + center)[sure], rtol=16 * EPS, atol=2**8 * EPS
    )
    assert torch.equal(quantizer.decode(out.indices), out.quantized)
    values = quantizer.codebook.mean(0)  # the levels stand around the mean
    assert ((values - quantizer.moments[0]).abs() <= 2**8 * EPS * (1 + scale)).all()


@pytest.mark.parametrize("levels", [2, 3, 4, 5, 6, 7, 8, 12, 16, 32, 64])
def test_the_step_is_near_the_best_one_for_a_normal_channel(levels: int) -> None:
    """Max 1960: the best of equidistant levels, found by a search over steps, with a numeric integral."""
    z = torch.linspace(-9, 9, 40_001, dtype=torch.float64)[:, None]
    density = torch.exp(-z.square() / 2)
    steps = torch.logspace(-2, 0.5, 800, dtype=torch.float64)
    digits = (z / steps + (levels - 1) / 2).round().clamp(0, levels - 1)
    errors = (density * (z - (digits - (levels - 1) / 2) * steps).square()).sum(0)
    best = float(steps[errors.argmin()])
    assert abs(WIDTH * math.sqrt(math.log(levels)) / levels / best - 1) < 0.1


@few
@given(levels=level_lists, seed=seeds)
def test_channels_may_have_any_mean_and_scale(levels: list[int], seed: int) -> None:
    """Indices are the same and values move along, where a power of two scales and nothing is on an edge."""
    channels, z = len(levels), normal(seed, 60, len(levels))
    quantizer, other = (NormalizedFSQ(channels, levels).double() for _ in range(2))
    scales = 2.0 ** torch.arange(channels)
    for _ in range(3):
        quantizer(z)
        other(z * scales + 4)
    moved = torch.stack([quantizer.moments[0] * scales + 4, quantizer.moments[1] * scales**2])
    torch.testing.assert_close(other.moments, moved, rtol=1e-9, atol=1e-9)
    found, expected = other.eval()(z * scales + 4), quantizer.eval()(z)
    same = found.indices == expected.indices
    assert same.double().mean() > 0.9
    torch.testing.assert_close(found.quantized[same], expected.quantized[same] * scales + 4, rtol=0, atol=1e-7)


@few
@given(levels=level_lists, seed=seeds)
def test_the_gradient_passes_between_the_outermost_levels(levels: list[int], seed: int) -> None:
    channels = len(levels)
    quantizer = NormalizedFSQ(channels, levels).double().eval()
    quantizer.initialize_from(spread(seed, 50, channels))
    z, g = spread(seed, 20, channels).requires_grad_(), normal(seed + 2, 20, channels)
    (found,) = torch.autograd.grad(quantizer(z).quantized, z, g)
    low, high = quantizer.codebook.amin(0), quantizer.codebook.amax(0)
    outside = (z < low - 1e-9) | (z > high + 1e-9)
    inside = (z > low + 1e-9) & (z < high - 1e-9)
    torch.testing.assert_close(found[inside], g[inside], rtol=16 * EPS, atol=0)
    assert not found[outside].any()


# Stages


@few
@given(seed=seeds, level=st.sampled_from([3, 4, 5, 8]))
def test_each_stage_takes_from_the_error_of_vectors_of_any_scale(seed: int, level: int) -> None:
    """A stage leaves at most a quarter of a channel's variance, for normal z 0.2; so do two stages, of 0.06."""
    torch.manual_seed(seed)
    quantizer = create("residual_fsq", dim=3, levels=[level] * 3, num_quantizers=2, normalize=True).double()
    x = torch.tensor([0.01, 1.0, 100.0]) * torch.randn(2000, 3, dtype=torch.float64) + 5
    quantizer.initialize_from(x)
    for _ in range(3):
        quantizer(x)
    for count, most in ((1, 0.25), (2, 0.0625)):
        error = quantizer.decode(quantizer.encode(x, num_codebooks=count)) - x
        assert (error.square().mean(0) < most * x.var(0)).all()
    last = quantizer.encode(x)[:, 1]
    assert len(last.unique()) == level**3 if level < 5 else len(last.unique()) > 100


def test_checkpointing_sees_the_statistics_before_the_step() -> None:
    quantizer, z = NormalizedFSQ(2, [5, 4]).double(), spread(0, 20, 2).requires_grad_()
    other = copy.deepcopy(quantizer)
    out = torch.utils.checkpoint.checkpoint(lambda x: quantizer(x).quantized.pow(3), z, use_reentrant=False)
    (found,) = torch.autograd.grad(out.sum(), z)
    (expected,) = torch.autograd.grad(other(z).quantized.pow(3).sum(), z)
    assert torch.equal(found, expected)
    assert_same_state(state_of(quantizer), state_of(other))


def test_wrong_options_are_named() -> None:
    with pytest.raises(ValueError, match=r"decay is 1.5, expected a number in \[0, 1\]"):
        NormalizedFSQ(2, [5, 5], decay=1.5)
    with pytest.raises(TypeError, match="process_group is 'all', expected 'world'"):
        NormalizedFSQ(2, [5, 5], process_group="all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^normalized_fsq takes either levels or codebook_size"):
        create("normalized_fsq", dim=4)
