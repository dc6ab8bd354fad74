"""Dithered FSQ as laws: noise as wide as a level for a share of the samples, else FSQ, and levels that change."""

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from quantizers import FSQ, DitheredFSQ, create
from quantizers.serialization.configuration import configuration, rebuild
from tests.cases import normal

EPS = torch.finfo(torch.float64).eps
MANY = 50_000

level_lists = st.lists(st.integers(2, 17), min_size=1, max_size=5)
odd_lists = st.lists(st.integers(1, 8).map(lambda half: 2 * half + 1), min_size=1, max_size=4)
seeds = st.integers(0, 2**31)
bounds = st.sampled_from(["tanh", "ifsq", "clamp"])
gradients = st.sampled_from(["straight_through", "rotation"])
units = st.sampled_from(["sample", "vector"])
every_unit = pytest.mark.parametrize("by", ["sample", "vector"])


def pair(levels: list[int], **options: Any) -> tuple[DitheredFSQ, FSQ]:
    """A dithered FSQ and the plain one, in float64."""
    plain = {name: value for name, value in options.items() if name in ("bound", "gradient")}
    return DitheredFSQ(len(levels), levels, **options).double(), FSQ(len(levels), levels, **plain).double()


def noisy_rows(quantizer: DitheredFSQ, x: Tensor) -> Tensor:
    """Which vectors got no code, [...]: noise hits a code with a chance of some 2⁻⁵⁰."""
    out = quantizer(x)
    return (out.quantized != quantizer.decode(out.indices)).any(-1)


# Values


@given(levels=level_lists, seed=seeds, bound=bounds, by=units, probability=st.sampled_from([0.25, 1.0]))
def test_a_value_is_at_most_half_a_step_from_the_bounded_vector(
    levels: list[int], seed: int, bound: str, by: str, probability: float
) -> None:
    """The indices are those of rounding, and the loss is zero."""
    dithered, plain = pair(levels, bound=bound, noise_by=by, noise_probability=probability)
    z = 2 * normal(seed, 4, 6, len(levels))
    torch.manual_seed(seed)
    quantized, indices, loss = dithered(z)
    half = torch.tensor(levels) // 2
    error = (quantized - dithered._bounded(z)).abs() * half
    assert error.max() <= 0.5 + 2**4 * max(levels) * EPS  # u · half and the sum are rounded
    assert torch.equal(indices, plain(z).indices)
    assert loss == 0


@pytest.mark.parametrize("levels", [2, 5, 8])
def test_noise_is_uniform_with_the_mean_of_the_bounded_vector(levels: int) -> None:
    """Kolmogorov's √n·distance exceeds 2.2 with a probability below 10⁻⁴; the mean is within five deviations."""
    dithered, _ = pair([levels], noise_probability=1.0, noise_by="vector")
    z = torch.randn(MANY, 1, dtype=torch.float64)
    noise = (dithered(z).quantized - dithered._bounded(z))[:, 0] * (levels // 2)
    ranks, ordered = torch.arange(MANY + 1) / MANY, (noise + 0.5).sort().values
    distance = torch.maximum((ranks[1:] - ordered).abs(), (ordered - ranks[:-1]).abs()).max()
    assert distance <= 2.2 / MANY**0.5
    assert abs(float(noise.mean())) <= 5 * (1 / 12 / MANY) ** 0.5


@given(levels=level_lists, seed=seeds, bound=bounds, gradient=gradients, by=units, training=st.booleans())
def test_without_noise_it_is_fsq(
    levels: list[int], seed: int, bound: str, gradient: str, by: str, training: bool
) -> None:
    """Bit for bit, in value, index and gradient: with probability 0, and in evaluation with any."""
    probability = 0.0 if training else 1.0
    options = {"bound": bound, "gradient": gradient}
    dithered, plain = pair(levels, **options, noise_by=by, noise_probability=probability)
    z, g = 2 * normal(seed, 4, 6, len(levels)), normal(seed + 1, 4, 6, len(levels))
    results = []
    for quantizer in (dithered.train(training), plain.train(training)):
        x = z.clone().requires_grad_()
        out = quantizer(x)
        results.append((*out, torch.autograd.grad(out.quantized, x, g)[0]))
    assert all(map(torch.equal, *results))
    assert torch.equal(dithered.encode(z), plain.encode(z))


@given(levels=level_lists, seed=seeds, bound=bounds, by=units)
def test_the_gradient_is_that_of_the_bound(levels: list[int], seed: int, bound: str, by: str) -> None:
    """Whether there is noise or not."""
    dithered, plain = pair(levels, bound=bound, noise_by=by)
    z, g = normal(seed, 8, len(levels)).requires_grad_(), normal(seed + 1, 8, len(levels))
    (found,) = torch.autograd.grad(dithered(z).quantized, z, g)
    (expected,) = torch.autograd.grad(plain._bounded(z), z, g)
    torch.testing.assert_close(found, expected, rtol=16 * EPS, atol=0)


# Who gets noise


@every_unit
@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_noise_falls_on_its_share(by: str, probability: float) -> None:
    """Of all vectors, or of all samples and then on all of their vectors."""
    dithered, _ = pair([5, 4], noise_by=by, noise_probability=probability)
    count = 4000
    noisy = noisy_rows(dithered, normal(0, count, 3, 2))
    draws = noisy[:, 0] if by == "sample" else noisy.flatten()
    assert abs(float(draws.double().mean()) - probability) <= 5 * math.sqrt(
        probability * (1 - probability) / len(draws)
    )
    mixed = (noisy.any(-1) != noisy.all(-1)).any()
    assert bool(mixed) == (by == "vector" and 0 < probability < 1)


@every_unit
@pytest.mark.parametrize("shape", [(), (0,), (7,), (0, 3), (2, 3, 4)], ids=str)
def test_noise_at_any_shape(by: str, shape: tuple[int, ...]) -> None:
    dithered, plain = pair([5, 4], noise_by=by, noise_probability=1.0)
    x = normal(0, *shape, 2)
    out = dithered(x)
    assert out.quantized.shape == x.shape
    assert torch.equal(out.indices, plain(x).indices)
    assert noisy_rows(dithered, x).all()


# Other levels


@given(levels=odd_lists, seed=seeds, finer=st.integers(2, 5), dim=st.sampled_from([None, 6]))
def test_finer_levels_come_nearer_to_the_same_vector(
    levels: list[int], seed: int, finer: int, dim: int | None
) -> None:
    """With odd counts u is the same up to a factor within 10⁻³, and half a step of the finer grid is the error."""
    torch.manual_seed(seed)
    quantizer = create("dithered_fsq", dim=dim or len(levels), levels=levels).double().eval()
    assert isinstance(quantizer, DitheredFSQ)
    counts = [finer * (level - 1) + 1 for level in levels]
    other = quantizer.with_levels(counts)
    assert other.level_counts == tuple(counts)
    x = normal(seed, 20, quantizer.dim)
    z = x if dim is None or dim == len(levels) else quantizer.project_in(x)
    assert (other._bounded(z) - quantizer._bounded(z)).abs().max() <= 1e-3 + 4 * EPS
    codes = other._decode(other.encode(x))
    half = torch.tensor(counts) // 2
    assert ((codes - quantizer._bounded(z)).abs() <= 0.5 / half + 1e-3 + 64 * EPS).all()
    assert torch.equal(other.decode(other.encode(x)), other(x).quantized)
    assert torch.equal(quantizer.with_levels(levels)(x).quantized, quantizer(x).quantized)


def test_other_levels_have_parameters_of_their_own() -> None:
    quantizer = create(
        "dithered_fsq", dim=6, levels=[5, 5], channel_dim=1, noise_by="vector", noise_probability=0.25
    )
    other = quantizer.with_levels([9, 9])
    before = copy.deepcopy(other.state_dict())
    with torch.no_grad():
        for parameter in quantizer.parameters():
            parameter.add_(1)
    for name, value in other.state_dict().items():
        assert torch.equal(value, before[name]), name
    again = rebuild(configuration(other))
    again.load_state_dict(other.state_dict())
    assert repr(again) == repr(other)
    x = torch.randn(2, 6, 3)
    assert torch.equal(again.encode(x), other.encode(x))


# Errors


def test_wrong_options_are_named() -> None:
    for probability in (-0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match=r"noise_probability is .*, expected a number in \[0, 1\]"):
            DitheredFSQ(4, [5], noise_probability=probability)
    with pytest.raises(ValueError, match="noise_by is 'channel', expected 'sample' or 'vector'"):
        DitheredFSQ(4, [5], noise_by="channel")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="levels has 2 counts, expected 1, one for each channel"):
        DitheredFSQ(4, [5]).with_levels([5, 5])
    with pytest.raises(ValueError, match=r"^dithered_fsq takes either levels or codebook_size"):
        create("dithered_fsq", dim=4)
