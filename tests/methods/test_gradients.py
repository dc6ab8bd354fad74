"""What each method does to a gradient, stated as a law and tested in float64 where rounding is small."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import quantizers
from quantizers.kernels.common.noise import gumbel_noise
from tests.cases import normal

EPS = torch.finfo(torch.float64).eps
seeds = st.integers(0, 2**31)


# VQ's two losses


def gradients(quantizer: nn.Module, z: Tensor, loss: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Of a loss, in z and in every parameter by name; zero where there is none."""
    names, parameters = zip(*quantizer.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, [z, *parameters], allow_unused=True, retain_graph=True)
    filled = [torch.zeros_like(p) if g is None else g for g, p in zip(found, [z, *parameters], strict=True)]
    return filled[0], dict(zip(names, filled[1:], strict=True))


@given(seed=seeds, n=st.integers(1, 20), weight=st.sampled_from([0.25, 1.0]))
def test_commitment_moves_only_the_encoder(seed: int, n: int, weight: float) -> None:
    quantizer = quantizers.VectorQuantizer(3, 8, commitment_weight=weight, codebook_weight=0.0).double()
    z = normal(seed, n, 3).requires_grad_()
    out = quantizer(z)
    to_z, to_parameters = gradients(quantizer, z, out.loss)
    expected = weight * 2 * (z - out.quantized).detach() / (n * 3)
    torch.testing.assert_close(to_z, expected, rtol=8 * EPS, atol=8 * EPS)
    assert (to_parameters["embedding"] == 0).all()


@given(seed=seeds, n=st.integers(1, 20), weight=st.sampled_from([0.5, 1.0]))
def test_codebook_term_moves_only_the_chosen_codes(seed: int, n: int, weight: float) -> None:
    quantizer = quantizers.VectorQuantizer(3, 8, commitment_weight=0.0, codebook_weight=weight).double()
    z = normal(seed, n, 3).requires_grad_()
    out = quantizer(z)
    to_z, to_parameters = gradients(quantizer, z, out.loss)
    assert (to_z == 0).all()
    one_hot = F.one_hot(out.indices, 8).double()
    expected = weight * 2 * one_hot.T @ (out.quantized - z).detach() / (n * 3)
    torch.testing.assert_close(to_parameters["embedding"], expected, rtol=n * 8 * EPS, atol=n * 8 * EPS)
    unused = one_hot.sum(0) == 0
    assert (to_parameters["embedding"][unused] == 0).all()


@pytest.mark.parametrize("gradient", ["straight_through", "rotation"])
@pytest.mark.parametrize("reaches", [False, True])
def test_decoder_gradient_reaches_the_codes_where_asked(gradient: str, reaches: bool) -> None:
    quantizer = quantizers.VectorQuantizer(3, 8, gradient=gradient, decoder_gradient=reaches).double()
    z, g = normal(0, 20, 3).requires_grad_(), normal(1, 20, 3)
    out = quantizer(z)
    _, to_parameters = gradients(quantizer, z, (out.quantized * g).sum())
    expected = F.one_hot(out.indices, 8).double().T @ g
    torch.testing.assert_close(to_parameters["embedding"], expected if reaches else torch.zeros(8, 3).double())


@given(seed=seeds)
def test_cosine_loss_is_the_angle(seed: int) -> None:
    """‖ẑ − ê‖² = 2 − 2 cos, at any length of z."""
    quantizer = quantizers.VectorQuantizer(3, 8, distance="cosine", codebook_weight=0.0, commitment_weight=1.0)
    quantizer.double()
    z = normal(seed, 10, 3)
    out = quantizer(z * 100)
    cosine = F.cosine_similarity(z[:, None], quantizer.embedding.detach(), dim=-1).amax(1)
    torch.testing.assert_close(out.loss, ((2 - 2 * cosine) / 3).mean(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(out.quantized.norm(dim=-1), torch.ones(10).double(), rtol=8 * EPS, atol=8 * EPS)


# SimVQ


def unused_codes(quantizer: nn.Module, z: Tensor) -> Tensor:
    return torch.bincount(quantizer.encode(z), minlength=quantizer.codebook_size) == 0


@pytest.mark.parametrize("transform", ["linear", "diagonal"])
def test_simvq_moves_codes_that_nobody_chose(transform: str) -> None:
    quantizer = quantizers.SimVQ(3, 32, transform=transform)
    z = torch.randn(5, 3)
    before, unused = quantizer.codebook.detach().clone(), unused_codes(quantizer, z)
    basis = quantizer.basis.clone()
    assert not quantizer.basis.requires_grad
    optimizer = torch.optim.SGD(quantizer.parameters(), lr=0.1)
    quantizer(z).loss.backward()
    optimizer.step()
    assert unused.any()
    assert (quantizer.codebook != before)[unused].any(-1).all()
    assert torch.equal(quantizer.basis, basis)


def test_vq_leaves_codes_that_nobody_chose() -> None:
    """What SimVQ remedies."""
    quantizer = quantizers.VectorQuantizer(3, 32)
    z = torch.randn(5, 3)
    before, unused = quantizer.codebook.detach().clone(), unused_codes(quantizer, z)
    quantizer(z).loss.backward()
    torch.optim.SGD(quantizer.parameters(), lr=0.1).step()
    assert torch.equal(quantizer.codebook[unused], before[unused])


@given(seed=seeds, n=st.integers(1, 10))
def test_simvq_gradient_of_the_map(seed: int, n: int) -> None:
    """With Q = C_k W: ∂/∂W of mean (z − q)² is 2/(nD) · C_kᵀ (q − z)."""
    quantizer = quantizers.SimVQ(3, 16, commitment_weight=0.0).double()
    z = normal(seed, n, 3).requires_grad_()
    out = quantizer(z)
    to_z, to_parameters = gradients(quantizer, z, out.loss)
    chosen = quantizer.basis[out.indices]
    expected = 2 / (n * 3) * chosen.T @ (out.quantized - z).detach()  # of W in c ↦ cW
    assert (to_z == 0).all()
    torch.testing.assert_close(to_parameters["transform.weight"].T, expected, rtol=1e-12, atol=1e-12)


def test_simvq_learned_basis_gets_a_gradient() -> None:
    quantizer = quantizers.SimVQ(3, 16, learned_basis=True)
    quantizer(torch.randn(5, 3)).loss.backward()
    assert quantizer.basis.grad.abs().sum() > 0


# FSQ


@given(
    seed=seeds,
    levels=st.lists(st.integers(2, 12), min_size=1, max_size=5),
    bound=st.sampled_from(["tanh", "ifsq"]),
    scale=st.sampled_from([0.1, 1.0, 5.0]),
)
def test_fsq_gradient_is_the_bounds_derivative(seed: int, levels: list[int], bound: str, scale: float) -> None:
    quantizer = quantizers.FSQ(len(levels), levels, bound=bound).double()
    z = (scale * normal(seed, 6, len(levels))).requires_grad_()
    g = normal(seed + 1, 6, len(levels))
    (actual,) = torch.autograd.grad(quantizer(z).quantized, z, g)
    for channel, count in enumerate(levels):
        half_range = (count - 1) / 2 * 1.001
        shift = math.atanh(0.5 / half_range) if count % 2 == 0 and count > 2 else 0.0
        inner = (0.8 if bound == "ifsq" else 1.0) * z[:, channel] + shift
        slope = (0.8 if bound == "ifsq" else 1.0) * half_range * (1 - inner.tanh() ** 2) / (count // 2)
        expected = (slope * g[:, channel]).detach()
        torch.testing.assert_close(actual[:, channel], expected, rtol=1e-9, atol=64 * count * EPS)


# Gumbel


@pytest.mark.parametrize("logits", ["linear", "distance"])
@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("scale", [None, 1.7])
def test_gumbel_gradient_is_softmax(logits: str, hard: bool, training: bool, scale: float | None) -> None:
    """Against a softmax written out, whose hard form is onehot − sg[y] + y."""
    temperature, kl_weight, n, k = 0.7, 0.3, 12, 6
    quantizer = quantizers.GumbelQuantizer(
        3, k, logits=logits, hard=hard, temperature=temperature, kl_weight=kl_weight, learned_scale=bool(scale)
    ).double()
    if scale:
        quantizer.log_scale.data.fill_(math.log(scale))
    quantizer.train(training)
    z, g = normal(0, n, 3).requires_grad_(), normal(1, n, 3)
    torch.manual_seed(4)
    out = quantizer(z)
    to_z, to_parameters = gradients(quantizer, z, (out.quantized * g).sum() + out.loss)

    torch.manual_seed(4)
    seed = torch.randint(2**62, ())
    codes = quantizer.embedding
    scores = F.linear(z, *quantizer.to_logits()) if logits == "linear" else -(z[:, None] - codes).square().sum(-1)
    if scale:
        scores = quantizer.log_scale.exp() * scores
    noise = gumbel_noise(seed, torch.arange(n), k) if training else 0.0
    y = ((scores + noise) / float(quantizer.temperature)).softmax(-1)
    p = scores.softmax(-1)
    one_hot = F.one_hot(y.argmax(-1), k).double()
    assert torch.equal(out.indices, y.argmax(-1))
    if training and not hard:
        value = y @ codes
        torch.testing.assert_close(out.quantized, value, rtol=1e-12, atol=1e-12)
    else:
        # The relaxed gradient goes to the logits alone; the code that is the value gets g itself.
        value = one_hot @ codes + (y - y.detach()) @ codes.detach()
        assert torch.equal(out.quantized, codes[out.indices])
    loss = kl_weight * (p * p.log() + p * math.log(k)).sum(-1).mean()
    expected_z, expected_parameters = gradients(quantizer, z, (value * g).sum() + loss)
    torch.testing.assert_close(out.loss, loss, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(to_z, expected_z, rtol=1e-9, atol=1e-12)
    for name, expected in expected_parameters.items():
        torch.testing.assert_close(to_parameters[name], expected, rtol=1e-9, atol=1e-12)
