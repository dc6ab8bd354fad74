"""Gaussian Quant: the code of the largest ratio of densities, the divergence, and samples in training."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from quantizers import GaussianQuant
from tests.cases import normal, seeded

pytestmark = pytest.mark.methods

EPS = torch.finfo(torch.float64).eps
seeds = st.integers(0, 2**31)


def built(dim: int = 3, size: int = 16, **options: float) -> GaussianQuant:
    """In float64, and with a projection that is the identity of [μ, v]: dim is twice the code's channels."""
    quantizer = GaussianQuant(2 * dim, size, code_dim=dim, **options).double()
    with torch.no_grad():
        quantizer.project_in.weight.copy_(torch.eye(2 * dim))
        quantizer.project_in.bias.zero_()
        quantizer.project_out.weight.copy_(torch.eye(2 * dim, dim))
        quantizer.project_out.bias.zero_()
    return quantizer


def posterior(x: Tensor) -> Normal:
    mean, v = x.chunk(2, -1)
    return Normal(mean, v.sigmoid().sqrt())


@given(seed=seeds, scale=st.sampled_from([0.1, 1.0, 10.0]), beta=st.floats(0, 2))
def test_the_code_has_the_largest_ratio_of_densities(seed: int, scale: float, beta: float) -> None:
    """Up to ties: no other has a larger one by more than the roundings of both computations."""
    quantizer = built(beta=beta)
    x = normal(seed, 50, 6) * scale
    indices = quantizer.encode(x)
    codes, q = quantizer.codebook, posterior(x)
    terms = Normal(q.mean[:, None], q.stddev[:, None]).log_prob(codes) - beta * Normal(0.0, 1.0).log_prob(codes)
    scores = terms.sum(-1)
    chosen = scores.gather(1, indices[:, None])[:, 0]
    # Each term is at most (|c| + |μ|)² / 2σ² + |log σ| + 1 + |β| c², to a dozen roundings, and there are three.
    size = (codes.abs().max() + q.mean.abs()).square() / (2 * q.variance)
    size = size + q.stddev.log().abs() + 1 + abs(beta) * codes.abs().max().square()
    assert (scores.amax(-1) - chosen <= 2 * 12 * EPS * size.sum(-1)).all()


@given(seed=seeds, scale=st.sampled_from([0.1, 1.0, 10.0]), tolerance=st.sampled_from([0.0, 0.5, 3.0]))
def test_the_loss_is_the_distance_of_the_divergence_from_the_band(
    seed: int, scale: float, tolerance: float
) -> None:
    quantizer = built(kl_weight=0.5, tolerance=tolerance)
    x = normal(seed, 50, 6) * scale
    divergence = kl_divergence(posterior(x), Normal(0.0, 1.0)).sum(-1)
    expected = 0.5 * ((divergence - math.log(16)).abs() - tolerance * math.log(2)).clamp(min=0).mean()
    assert float(quantizer(x).loss.detach()) == pytest.approx(float(expected), rel=1e-9, abs=1e-9)
    assert torch.equal(quantizer(x).loss, quantizer.eval()(x).loss)


@given(seed=seeds)
def test_the_value_in_training_is_a_sample_with_the_gradient_of_its_formula(seed: int) -> None:
    quantizer = built(kl_weight=0.0)
    x, g = normal(seed, 50, 6).requires_grad_(), normal(seed + 1, 50, 3)
    quantized, indices, _ = seeded(quantizer, x, seed=seed)
    value = quantized[:, :3]
    value.backward(g)
    q = posterior(x.detach())
    noise = (value.detach() - q.mean) / q.stddev
    expected = torch.cat([g, g * noise * q.stddev * (1 - q.variance) / 2], -1)  # dσ/dv = σ (1 − σ²) / 2
    assert (x.grad - expected).abs().max() <= 2.0**-40  # a dozen roundings of numbers below 100
    assert torch.equal(indices, quantizer.encode(x))
    # 150 squares of N(0, 1) have the mean 1 and a standard deviation of √(2/150); six of these.
    assert abs(float(noise.square().mean()) - 1) <= 6 * math.sqrt(2 / 150)


@pytest.mark.parametrize("spare", [-2.0, 0.0, 1.0, 2.0])
def test_the_error_of_a_code_follows_the_bits_to_spare(spare: float) -> None:
    """With two channels it is e^(1 − t) times σ², where t = ln K − KL in nats.

    Near μ there are K · p(μ) codes per area, so that π r² K p(μ) of the nearest is exponentially distributed, with
    mean 1. And KL = −ln(2πe σ² p(μ)) for σ far below 1. The mean square per channel is r² / 2.
    """
    size = 2**14
    quantizer = built(dim=2, size=size).eval()
    means = normal(3, 4000, 2).clamp(-1.5, 1.5)
    target = math.log(size) - spare * math.log(2)
    # ½ (μ² + σ² − 1 − log σ²) = target / 2 in each channel, solved for log σ² by bisection.
    low, high = torch.full_like(means, -29.0), torch.zeros_like(means)
    for _ in range(60):
        middle = (low + high) / 2
        above = means.square() + torch.expm1(middle) - middle > target
        low, high = middle.where(above, low), high.where(above, middle)
    quantized = quantizer.codebook[quantizer.encode(torch.cat([means, low.exp().logit()], -1))]
    ratio = float(((quantized - means).square() / low.exp()).mean())
    # The mean of 4000 exponential numbers, of which those in one cell depend on each other, and a curved density.
    assert ratio == pytest.approx(math.exp(1 - spare * math.log(2)), rel=0.15)


def test_codes_are_fixed_draws_of_the_prior() -> None:
    quantizer = GaussianQuant(8, 4096)
    codes = quantizer.codebook.clone()
    # 2¹⁵ numbers: mean and variance to six standard deviations.
    assert abs(float(codes.mean())) <= 6 * 2**-7.5
    assert abs(float(codes.var()) - 1) <= 6 * math.sqrt(2) * 2**-7.5
    optimizer = torch.optim.SGD(quantizer.parameters(), lr=0.1)
    out = quantizer(torch.randn(20, 8))
    (out.quantized.square().sum() + out.loss).backward()
    optimizer.step()
    assert torch.equal(quantizer.codebook, codes)


def test_any_vector_has_a_code() -> None:
    """Variances at the ends of their range, and means far out, overflow no score."""
    quantizer = GaussianQuant(2, 16, code_dim=1)
    with torch.no_grad():
        quantizer.project_in.weight.copy_(torch.eye(2))
        quantizer.project_in.bias.zero_()
    x = torch.tensor([[m, v] for m in (-1e30, -1.0, 0.0, 1e30) for v in (-1e30, -30.0, -5.0, 0.0)])
    indices = quantizer.encode(x).reshape(4, 4)
    codes = quantizer.codebook[:, 0]
    assert (indices[0] == codes.argmin()).all()
    assert (indices[3] == codes.argmax()).all()
    assert (indices[2, :2] == codes.abs().argmin()).all()


def test_what_means_nothing_is_named() -> None:
    for options, sentence in (
        ({"kl_weight": -1.0}, "kl_weight is -1.0, expected a finite number of at least 0"),
        ({"tolerance": -1.0}, "tolerance is -1.0, expected a number of at least 0"),
        ({"beta": math.inf}, "beta is inf, expected a finite number of at least 0"),
    ):
        with pytest.raises(ValueError, match=sentence):
            GaussianQuant(4, 8, **options)
