"""FSP: levels that are equally likely, centres that are near, and a noise with the range of the error."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from quantizers import FSP, create
from quantizers.scalar.fsp import CDFS
from tests.cases import normal

EPS = torch.finfo(torch.float64).eps
MANY = 50_000

level_lists = st.lists(st.integers(2, 17), min_size=1, max_size=5)
seeds = st.integers(0, 2**31)
cdfs = st.sampled_from(list(CDFS))
every_cdf = pytest.mark.parametrize("cdf", CDFS)

QUANTILES = {
    "normal": lambda u: math.sqrt(2) * torch.erfinv(2 * u - 1),
    "logistic": torch.logit,
    "tanh": lambda u: torch.atanh(2 * u - 1),
}


def perturbed(u: float, levels: int, count: int = MANY) -> Tensor:
    """Training values of a channel at CDF(z) = u, without codes among them."""
    quantizer = FSP(1, [levels], quantize_probability=0).double()
    z = QUANTILES["normal"](torch.tensor(u, dtype=torch.float64))
    return quantizer(z.expand(count, 1)).quantized[:, 0]


def distance_from_uniform(values: Tensor) -> float:
    """Kolmogorov's distance of a sample from the uniform distribution on [0, 1]."""
    ranks = torch.arange(len(values) + 1) / len(values)
    ordered = values.sort().values
    return float(torch.maximum((ranks[1:] - ordered).abs(), (ordered - ranks[:-1]).abs()).max())


# Kolmogorov's √n·distance exceeds 2.2 with a probability of 2 e^(−2 · 2.2²) < 10⁻⁴.
SCATTER = 2.2 / MANY**0.5


# Levels


@every_cdf
@pytest.mark.parametrize("levels", [2, 5, 8])
def test_levels_are_equally_likely(cdf: str, levels: int) -> None:
    """For z of the distribution whose CDF it is: χ² of the counts within five deviations of its mean."""
    z = QUANTILES[cdf](torch.rand(MANY, dtype=torch.float64))
    counts = torch.bincount(FSP(1, [levels], cdf=cdf).double().encode(z[:, None]), minlength=levels)
    expected = MANY / levels
    squares = float(((counts - expected) ** 2 / expected).sum())
    assert squares <= levels - 1 + 5 * math.sqrt(2 * (levels - 1))


@given(levels=level_lists, seed=seeds, cdf=cdfs, scale=st.sampled_from([0.1, 1.0, 1e3]))
def test_a_code_is_the_centre_of_the_bin(levels: list[int], seed: int, cdf: str, scale: float) -> None:
    """(⌊uL⌋ + ½)/L, at most 1/2L from u, and Σ digit·Π L is the index."""
    quantizer = FSP(len(levels), levels, cdf=cdf).double().eval()
    z = scale * normal(seed, 30, len(levels))
    quantized, indices, loss = quantizer(z)
    assert loss == 0
    counts = torch.tensor(levels)
    u = CDFS[cdf](z)
    assert ((quantized - u).abs() <= 0.5 / counts + 2 * EPS).all()  # the roundings of u·L and of the centre
    digits = (quantized * counts - 0.5).round().long()
    assert ((digits >= 0) & (digits < counts)).all()
    assert torch.equal(quantized, (2 * digits + 1).double() / (2 * counts))
    for row, index in zip(digits.tolist(), indices.tolist(), strict=True):
        assert index == sum(digit * math.prod(levels[:i]) for i, digit in enumerate(row))


@given(levels=st.lists(st.integers(2, 9), min_size=1, max_size=4), cdf=cdfs)
def test_codebook_is_a_bijection(levels: list[int], cdf: str) -> None:
    quantizer = FSP(len(levels), levels, cdf=cdf).double()
    codebook = quantizer.codebook
    assert len(codebook) == math.prod(levels)
    assert torch.equal(quantizer.encode(QUANTILES[cdf](codebook)), torch.arange(len(codebook)))


@given(bits=st.lists(st.booleans(), min_size=1, max_size=63))
def test_indices_are_exact_up_to_the_largest_codebooks(bits: list[bool]) -> None:
    quantizer = FSP(len(bits), [2] * len(bits)).eval()
    quantized, index, _ = quantizer(torch.tensor([1.0 if bit else -1.0 for bit in bits]))
    assert int(index) == sum(2**i for i, bit in enumerate(bits) if bit)
    assert torch.equal(quantizer.decode(index), quantized)


def test_the_finest_levels_are_told_apart() -> None:
    quantizer = FSP(1, [2**23], cdf="logistic")
    ends = torch.tensor([0, 1, 2**22, 2**23 - 2, 2**23 - 1])
    assert len(quantizer.decode(ends).unique()) == 5
    assert (quantizer.decode(ends).double()[:, 0] == (ends.double() + 0.5) / 2**23).all()
    assert quantizer.encode(torch.tensor([[-1e30], [1e30]])).tolist() == [0, 2**23 - 1]


# Training


@given(levels=st.integers(2, 9), inside=st.floats(0, 1), seed=seeds)
def test_noise_within_is_uniform_over_half_a_bin(levels: int, inside: float, seed: int) -> None:
    """u + U(−1/2L, 1/2L), whose mean is u, where all of that is in [0, 1]."""
    torch.manual_seed(seed)
    half = 0.5 / levels
    u = half + inside * (1 - 2 * half)
    noise = (perturbed(u, levels, 4000) - u) / half
    assert noise.abs().max() <= 1 + 2**10 * EPS  # u comes back from its quantile within some roundings
    # As SCATTER, but of probability 10⁻⁷ in each of many examples; a mean in five standard errors of 1/√3.
    assert distance_from_uniform((noise + 1) / 2) <= 2.9 / 4000**0.5
    assert abs(float(noise.mean())) <= 5.5 * (1 / 3 / 4000) ** 0.5


@pytest.mark.parametrize("levels", [2, 5])
@pytest.mark.parametrize("part", [0.0, 0.2, 0.7])
def test_a_step_out_of_the_interval_is_not_taken(levels: int, part: float) -> None:
    """At u < h = 1/2L a share (h − u)/2h of the steps leaves [0, 1]; there the value is u."""
    half = 0.5 / levels
    u = max(part * half, 1e-9)
    for value in (perturbed(u, levels), 1 - perturbed(1 - u, levels)):
        assert value.min() >= 0
        stayed = float(((value - u).abs() < 1e-12).double().mean())
        share = (half - u) / (2 * half)
        assert abs(stayed - share) <= 5 * math.sqrt(share * (1 - share) / MANY)
        assert value.max() <= u + half + 2**10 * EPS


@pytest.mark.parametrize("levels", [2, 3, 7])
def test_noise_keeps_the_uniform_distribution(levels: int) -> None:
    """The paper's reason for not taking those steps: the decoder meets in training what is uniform still."""
    z = QUANTILES["normal"](torch.rand(MANY, 1, dtype=torch.float64))
    values = FSP(1, [levels], quantize_probability=0).double()(z).quantized[:, 0]
    assert ((values >= 0) & (values <= 1)).all()
    assert distance_from_uniform(values) <= SCATTER


@pytest.mark.parametrize("probability", [0, 0.5, 0.9, 1])
def test_a_vector_is_its_code_with_that_probability(probability: float) -> None:
    """All channels or none. A channel at u may stay there, but is no centre then."""
    quantizer = FSP(3, [3, 5, 4], quantize_probability=probability)
    quantized, indices, loss = quantizer(torch.randn(MANY, 3))
    coded = quantized == quantizer.decode(indices)
    whole, some = coded.all(-1).double().mean(), coded.any(-1).double().mean()
    assert abs(whole - probability) <= 5 * math.sqrt(probability * (1 - probability) / MANY)
    # Noise hits a centre by a chance of some 2⁻²⁴ · L each: in none of a million channels but a few.
    assert abs(some - whole) <= 10 / MANY
    assert loss == 0


@given(
    levels=level_lists,
    seed=seeds,
    training=st.booleans(),
    probability=st.sampled_from([0, 0.5, 1]),
    scale=st.sampled_from([0.1, 1.0, 4.0]),
)
def test_gradient_is_the_density(
    levels: list[int], seed: int, training: bool, probability: float, scale: float
) -> None:
    """Whether the value is a code, has noise, or stays: dN(0, 1) times the decoder's."""
    quantizer = FSP(len(levels), levels, quantize_probability=probability).double().train(training)
    z, g = (scale * normal(seed, 6, len(levels))).requires_grad_(), normal(seed + 1, 6, len(levels))
    (actual,) = torch.autograd.grad(quantizer(z).quantized, z, g)
    expected = g * torch.exp(-(z.detach() ** 2) / 2) / math.sqrt(2 * math.pi)
    torch.testing.assert_close(actual, expected, rtol=1e3 * EPS, atol=0)  # z² < 400 is rounded before exp


@every_cdf
def test_gradient_far_out_is_zero_and_the_outermost_level_is_taken(cdf: str) -> None:
    z = torch.tensor([[-3e38], [-1e30], [1e30], [3e38]]).requires_grad_()
    quantized, indices, _ = FSP(1, [7], cdf=cdf)(z)
    quantized.sum().backward()
    assert indices.tolist() == [0, 0, 6, 6]
    assert (z.grad == 0).all()
    assert ((quantized >= 0) & (quantized <= 1)).all()


# Errors


def test_wrong_options_are_named() -> None:
    with pytest.raises(ValueError, match="cdf is 'cauchy', expected 'normal', 'logistic' or 'tanh'"):
        FSP(4, [5], cdf="cauchy")
    for probability in (-0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match=r"quantize_probability is .*, expected a number in \[0, 1\]"):
            FSP(4, [5], quantize_probability=probability)
    with pytest.raises(ValueError, match="levels holds 8388609, expected at most 8388608"):
        FSP(4, [2**23 + 1])
    with pytest.raises(ValueError, match="fsp takes either levels or codebook_size"):
        create("fsp", dim=4)
    with pytest.raises(ValueError, match="codes: too large to build"):
        _ = FSP(4, [8] * 9).codebook
