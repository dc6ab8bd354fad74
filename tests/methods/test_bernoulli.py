"""Sampled bits: draws, divergence and log-probabilities against the distribution written out over all codes."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from quantizers import BernoulliQuantizer
from tests.cases import normal
from tests.effort import examples

EPS = torch.finfo(torch.float64).eps
seeds = st.integers(0, 2**31)
few_bits = st.integers(1, 6)
scales = st.sampled_from([0.1, 1.0, 4.0])


def build(bits: int, **options: float) -> BernoulliQuantizer:
    return BernoulliQuantizer(bits, 2**bits, **options).double()


def bits_of(bits: int) -> Tensor:
    """By arithmetic of its own: [2^L, L] of zeros and ones, bit i of k in channel i."""
    return torch.tensor([[k >> i & 1 for i in range(bits)] for k in range(2**bits)], dtype=torch.float64)


def probabilities(z: Tensor) -> Tensor:
    """Of all codes, [N, 2^L]: Π_i of σ(z_i) where bit i is one, of σ(−z_i) where it is zero."""
    ones = bits_of(z.shape[-1])
    return (torch.sigmoid(z)[:, None] * ones + torch.sigmoid(-z)[:, None] * (1 - ones)).prod(-1)


# The loss


@examples(15)
@given(seed=seeds, bits=few_bits, rows=st.integers(1, 5), scale=scales, free_nats=st.sampled_from([0.0, 0.3, 2.0]))
def test_loss_is_the_divergence_over_all_codes(
    seed: int, bits: int, rows: int, scale: float, free_nats: float
) -> None:
    """Value and gradient of mean max(0, Σ_c p_c ln(2^L p_c) − free_nats), in both modes."""
    quantizer = build(bits, kl_weight=0.7, free_nats=free_nats)
    z = (scale * normal(seed, rows, bits)).requires_grad_()
    p = probabilities(z)
    divergence = (p * (p * 2**bits).log()).sum(-1)
    expected = 0.7 * (divergence - free_nats).clamp(min=0).mean()
    (slope,) = torch.autograd.grad(expected, z)
    # Each of up to 2⁶ products has a relative error of 2L eps, and its logarithm, below L(|z| + 1) < 2⁸, as much
    # as an absolute one: 2⁶ · 2⁴ · 2⁸ eps at the worst, and a derivative has as many terms, each times below 1.
    tolerance = 2.0**18 * EPS
    for training in (True, False):
        loss = quantizer.train(training)(z).loss
        (actual,) = torch.autograd.grad(loss, z)
        assert abs(loss - expected) <= tolerance
        assert (actual - slope).abs().max() <= tolerance


@given(seed=seeds, free_bits=st.integers(1, 5), scale=st.sampled_from([0.1, 1.0, 1e30]))
def test_free_nats_cost_nothing(seed: int, free_bits: int, scale: float) -> None:
    """Below them neither loss nor gradient, each vector for itself; 5 bits can say no more than 5 bits."""
    quantizer = build(5, kl_weight=1.0, free_nats=(free_bits + 0.01) * math.log(2))
    z = scale * normal(seed, 4, 5)
    z[:, free_bits:] = 0  # undecided: what is left can say free_bits
    z[0] = 30.0  # 5 bits but for 10⁻¹¹
    z.requires_grad_()
    loss = quantizer(z).loss
    (slope,) = torch.autograd.grad(loss, z)
    assert (slope[1:] == 0).all()
    assert float(loss.detach()) == pytest.approx(max(0.0, 4.99 - free_bits) * math.log(2) / 4, abs=1e-9)
    assert bool((slope[0] > 0).all()) == (free_bits < 5)


# The draws


def test_bits_are_drawn_with_their_probabilities() -> None:
    """Counts of all 2³ codes, so that bits are independent too: χ² of 7 degrees of freedom, p = 10⁻⁴ at 29.9."""
    z, draws = torch.tensor([[0.0, 1.2, -2.0]]), 20_000
    torch.manual_seed(0)
    out = BernoulliQuantizer(3, 8)(z.expand(draws, 3))
    expected = draws * probabilities(z.double())[0]
    found = torch.bincount(out.indices, minlength=8)
    assert ((found - expected).square() / expected).sum() < 29.9


def test_a_seed_repeats_the_draws_and_each_forward_draws_anew() -> None:
    quantizer, z = BernoulliQuantizer(20, 2**20), torch.zeros(20, 20)
    torch.manual_seed(3)
    first, second = quantizer(z).indices, quantizer(z).indices
    torch.manual_seed(3)
    assert torch.equal(quantizer(z).indices, first)
    assert not torch.equal(first, second)


@given(z=st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=63))
def test_evaluation_takes_the_likelier_bit_and_draws_nothing(z: list[float]) -> None:
    """Of up to 63 bits, and zero where both are as likely; `encode` does so in training too."""
    quantizer = BernoulliQuantizer(len(z), 2 ** len(z))
    x, generator = torch.tensor(z), torch.get_rng_state()
    index = sum(2**i for i, logit in enumerate(z) if logit > 0)
    assert int(quantizer.encode(x)) == index
    quantized, found, _ = quantizer.eval()(x)
    assert int(found) == index
    assert quantized.tolist() == [1.0 if logit > 0 else -1.0 for logit in z]
    assert torch.equal(generator, torch.get_rng_state())


@given(z=st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=63), seed=seeds)
def test_what_is_drawn_is_a_code_of_up_to_63_bits(z: list[float], seed: int) -> None:
    quantizer = BernoulliQuantizer(len(z), 2 ** len(z))
    torch.manual_seed(seed)
    quantized, index, _ = quantizer(torch.tensor(z))
    assert torch.equal(quantizer.decode(index), quantized)
    assert torch.equal(quantizer.encode(quantized), index)


# The gradient


@examples(15)
@given(seed=seeds, bits=few_bits, training=st.booleans(), scale=scales)
def test_gradient_is_that_of_the_mean_code(seed: int, bits: int, training: bool, scale: float) -> None:
    """Of Σ_c p_c c over all codes, the paper's one-hot times their table, which is 2σ(z) − 1."""
    quantizer = build(bits).train(training)
    z, g = (scale * normal(seed, 4, bits)).requires_grad_(), normal(seed + 1, 4, bits)
    (actual,) = torch.autograd.grad(quantizer(z).quantized, z, g)
    mean = probabilities(z) @ (2 * bits_of(bits) - 1)
    (over_all_codes,) = torch.autograd.grad(mean, z, g)
    p = torch.sigmoid(z.detach())
    tolerance = 2.0**12 * EPS  # 2⁶ products of 6 factors, each right to 2 eps, times |g| < 6
    assert (actual - over_all_codes).abs().max() <= tolerance
    assert (actual - 2 * p * (1 - p) * g).abs().max() <= tolerance


# Log-probabilities


@examples(15)
@given(seed=seeds, bits=few_bits, scale=scales)
def test_log_prob_is_that_of_each_code(seed: int, bits: int, scale: float) -> None:
    """Each the logarithm of its product, and all of them together one."""
    quantizer, z = build(bits), (scale * normal(seed, 3, bits)).requires_grad_()
    every = torch.arange(2**bits).expand(3, -1)
    log_p = quantizer.log_prob(z[:, None].expand(-1, 2**bits, -1), every)
    p = probabilities(z)
    tolerance = 2.0**12 * EPS  # 6 logarithms, each below 2⁵, and a product of 6 factors; sums of 2⁶ below one
    assert (log_p - p.log()).abs().max() <= tolerance
    assert (log_p.exp().sum(-1) - 1).abs().max() <= tolerance
    (slope,) = torch.autograd.grad(log_p[:, 0].sum(), z)  # all bits zero: Σ ln σ(−z_i)
    assert (slope + torch.sigmoid(z.detach())).abs().max() <= tolerance


def test_log_prob_has_the_axes_of_the_indices_and_nan_where_there_is_none() -> None:
    quantizer = BernoulliQuantizer(6, 8, channel_dim=1)
    x = normal(0, 2, 6, 5, dtype=torch.float32)
    x[1, 0, 3] = torch.inf
    x.requires_grad_()
    indices = quantizer(x).indices
    indices[0, 2], indices[1, 3] = -1, 0
    log_p = quantizer.log_prob(x, indices)
    assert log_p.shape == (2, 5)
    assert log_p.isnan().nonzero().tolist() == [[0, 2], [1, 3]]
    (slope,) = torch.autograd.grad(log_p.nansum(), x)
    assert slope.isfinite().all()
    assert (slope[1, :, 3] == 0).all()
    assert (slope[0, :, 2] == 0).all()
    with pytest.raises(ValueError, match=r"indices have shape \(5,\), expected \(2, 5\), one per vector"):
        quantizer.log_prob(x, indices[0])
    with pytest.raises(IndexError, match="expected 0 to 7"):
        quantizer.log_prob(x, indices + 8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sure_bits_are_drawn_and_all_is_finite(dtype: torch.dtype) -> None:
    """Logits of 10³⁰: the sign is drawn always, the divergence is L ln 2, the other code has −2·10³⁰ nats."""
    z = torch.tensor([[1e30, -1e30], [-1e30, 1e30]], dtype=dtype).repeat(500, 1).requires_grad_()
    quantizer = BernoulliQuantizer(2, 4, kl_weight=1.0, free_nats=0.0)
    torch.manual_seed(0)
    quantized, indices, loss = quantizer(z)
    assert indices.tolist() == [1, 2] * 500
    assert float(loss.detach()) == pytest.approx(2 * math.log(2), rel=1e-6)
    likely, unlikely = quantizer.log_prob(z, indices), quantizer.log_prob(z, 3 - indices)
    assert (likely == 0).all()
    assert unlikely.tolist() == pytest.approx([-2e30] * 1000, rel=1e-6)
    (slope,) = torch.autograd.grad(quantized.sum() + loss + likely.sum() + unlikely.sum() / 1000, z)
    assert slope.isfinite().all()


# Errors


@pytest.mark.parametrize("value", [-0.1, math.nan])
@pytest.mark.parametrize("name", ["kl_weight", "free_nats"])
def test_wrong_weights_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value!r}, expected a number of at least 0"):
        BernoulliQuantizer(4, 16, **{name: value})


def test_wrong_size_is_named() -> None:
    with pytest.raises(ValueError, match="codebook_size is 33, expected a power of two"):
        BernoulliQuantizer(4, 33)
