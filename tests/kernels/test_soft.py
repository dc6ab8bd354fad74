"""Softmax-weighted codes against the whole N × K softmax."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from quantizers.kernels.common.noise import gumbel_noise
from quantizers.kernels.soft import compiled, reference
from quantizers.kernels.soft.operation import soft_codes

pytestmark = pytest.mark.usefixtures("implementation")

Results = tuple[Tensor, Tensor, Tensor]


def explicit_soft_codes(
    x: Tensor, keys: Tensor, bias: Tensor, values: Tensor, temperature: Tensor, seed: Tensor | None
) -> Results:
    logits = x @ keys.T + bias
    noise = 0 if seed is None else gumbel_noise(seed, torch.arange(len(x)), len(keys))
    p = logits.softmax(-1)
    y = torch.softmax((logits + noise) / temperature, -1)
    return y @ values, y.argmax(-1), (p * p.log()).sum(-1) + math.log(len(keys))


@given(
    seed=st.integers(-(2**63), 2**63 - 1),
    n=st.integers(1, 9),
    size=st.integers(1, 40),
    temperature=st.sampled_from([0.1, 1.0, 4.0]),
    noisy=st.booleans(),
)
def test_soft_codes_and_gradients_are_softmax(
    seed: int, n: int, size: int, temperature: float, noisy: bool
) -> None:
    """Value, divergence and every gradient, against autograd through the whole N × K softmax in float64."""
    generator = torch.Generator().manual_seed(seed % 2**31)
    shapes = [(n, 3), (size, 3), (size,), (size, 2)]
    tensors = [torch.randn(*s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes]
    tau = torch.tensor(temperature, dtype=torch.float64)
    g = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    results = []
    for function in (soft_codes, explicit_soft_codes):
        value, indices, divergence = function(*tensors, tau, torch.tensor(seed) if noisy else None)
        gradients = torch.autograd.grad((value * g).sum() + divergence.sin().sum(), tensors)
        results.append((value, indices, divergence, *gradients))
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected)  # float64's default: 1e-7 relative, 1e-7 absolute


@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_soft_codes_in_float32(scale: float) -> None:
    """Against float64; logits of hundreds, whose exponentials leave float32."""
    x, keys, bias, values = torch.randn(300, 8), scale * torch.randn(257, 8), torch.randn(257), torch.randn(257, 4)
    tau, seed = torch.tensor(0.7), torch.tensor(5)
    value, indices, divergence = soft_codes(x, keys, bias, values, tau, seed)
    wide = [tensor.double() for tensor in (x, keys, bias, values, tau)]
    expected, expected_indices, expected_divergence = soft_codes(*wide, seed)
    # A logit is a sum of D + 1 terms of the size of `logit`; y, and so the value, moves by as much, over τ.
    logit = (x.abs() @ keys.abs().T).max() + 17
    bound = 2 * (8 + 4) * 2.0**-24 * logit.double() / tau
    assert ((value - expected).abs() <= 2 * bound * values.abs().max()).all()
    # Σ p (ln p + ln K): p moves by a relative 2·bound, ln p by 2·bound
    assert ((divergence - expected_divergence).abs() <= 4 * bound * (1 + math.log(257))).all()
    assert (indices != expected_indices).sum() <= 3  # near ties only
    assert value.dtype == divergence.dtype == torch.float32


def test_blocks_draw_different_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (reference, compiled):
        monkeypatch.setattr(module, "SCORE_BUDGET", 64)
    x, keys = torch.zeros(64, 2), torch.zeros(16, 2)
    value, *_ = soft_codes(x, keys, keys[:, 0], torch.randn(16, 3), torch.ones(()), torch.tensor(5))
    assert len(value.unique(dim=0)) == 64


def test_noise_is_the_same_under_every_implementation(implementation: str) -> None:
    """The sample of 20 000 rows, up to near ties of float32."""
    bias, keys = torch.randn(7), torch.zeros(7, 1)
    arguments = torch.zeros(20_000, 1), keys, bias, keys, torch.ones(()), torch.tensor(2**62 + 12345)
    expected = reference.soft_codes(*arguments)[1]
    assert (soft_codes(*arguments)[1] != expected).sum() <= 2


def test_no_vectors() -> None:
    keys = torch.randn(4, 3, requires_grad=True)
    value, indices, divergence = soft_codes(torch.zeros(0, 3), keys, keys[:, 0], keys, torch.ones(()), None)
    assert value.shape == (0, 3)
    assert indices.shape == divergence.shape == (0,)
    (gradient,) = torch.autograd.grad(value.sum() + divergence.sum(), keys)
    assert (gradient == 0).all()


def test_gumbel_samples_follow_the_softmax() -> None:
    """The index of the noisy maximum is a sample of softmax(logits): chi-square of five codes, p > 10⁻⁶."""
    n = 20_000
    bias = torch.tensor([0.0, 1.0, -1.0, 2.0, 0.5])
    keys = torch.zeros(5, 1)
    _, indices, _ = soft_codes(torch.zeros(n, 1), keys, bias, keys, torch.ones(()), torch.tensor(11))
    expected = bias.softmax(0) * n
    chi_square = ((torch.bincount(indices, minlength=5) - expected).square() / expected).sum()
    assert chi_square < 33.4  # the 1 − 10⁻⁶ quantile at four degrees of freedom
