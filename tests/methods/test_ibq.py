"""IBQ against its expression written out with the whole N × K softmax, in float64."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from quantizers import IBQ, VectorQuantizer
from tests.cases import normal
from tests.effort import examples

EPS = torch.finfo(torch.float64).eps
seeds = st.integers(0, 2**31)
weights = st.sampled_from([0.0, 0.25, 1.0])


def written_out(quantizer: IBQ, z: Tensor) -> tuple[Tensor, Tensor]:
    """The value (onehot − sg[p] + p) E and the loss, as the paper has them."""
    codes = quantizer.embedding
    p = (z @ codes.T).softmax(-1)
    one_hot = F.one_hot((z @ codes.T).argmax(-1), len(codes)).to(p)
    value, hard = (one_hot - p.detach() + p) @ codes, one_hot @ codes
    loss = quantizer.double_weight * (value - z).square().mean()
    loss = loss + quantizer.commitment_weight * (z - hard.detach()).square().mean()
    return value, loss + quantizer.codebook_weight * (z.detach() - hard).square().mean()


@examples(20)
@given(
    seed=seeds,
    shape=st.tuples(st.integers(1, 12), st.integers(1, 9), st.integers(1, 5)),
    loss_weights=st.tuples(weights, weights, weights),
    scale=st.sampled_from([0.1, 1.0, 5.0]),
    training=st.booleans(),
)
def test_value_loss_and_gradients_are_those_of_the_expression(
    seed: int, shape: tuple[int, int, int], loss_weights: tuple[float, float, float], scale: float, training: bool
) -> None:
    n, size, dim = shape
    commitment, codebook, double = loss_weights
    quantizer = IBQ(
        dim, size, commitment_weight=commitment, codebook_weight=codebook, double_weight=double
    ).double()
    quantizer.set_codebook(normal(seed, size, dim))
    z, g = (scale * normal(seed + 1, n, dim)).requires_grad_(), normal(seed + 2, n, dim)
    out = quantizer.train(training)(z)
    value, loss = written_out(quantizer, z)
    assert torch.equal(out.quantized, quantizer.embedding[out.indices])
    torch.testing.assert_close(out.quantized, value)
    torch.testing.assert_close(out.loss, loss)
    inputs = [z, quantizer.embedding]
    actual = torch.autograd.grad((out.quantized * g).sum() + out.loss, inputs)
    expected = torch.autograd.grad((value * g).sum() + loss, inputs)
    # A logit is a sum of D products and rounds by Dε|z||e|, and so, relatively, does p; sums over codes, channels
    # and rows of products of p, g or the loss's gradient, codes and vectors add their own, of the terms' sizes.
    z_size, e_size = float(z.detach().norm(dim=-1).max()), float(quantizer.embedding.detach().norm(dim=-1).max())
    to_value = float(g.norm(dim=-1).max()) + 6 * (z_size + e_size)
    size_of_terms = to_value * (1 + e_size) * (e_size + n * z_size + n)
    bound = 4 * (n + size + dim) * (1 + dim * z_size * e_size) * EPS * size_of_terms
    for a, b in zip(actual, expected, strict=True):
        assert ((a - b).abs() <= bound).all()


@examples(20)
@given(seed=seeds, n=st.integers(1, 12), size=st.integers(1, 9), temperature=st.sampled_from([0.5, 1.0, 3.0]))
def test_the_entropy_penalty_is_that_of_the_products(seed: int, n: int, size: int, temperature: float) -> None:
    """mean H(p) − H(mean p) with p = softmax(z·e / T), and its gradients; a masked vector does not count."""
    quantizer = IBQ(3, size, entropy_weight=0.5, entropy_temperature=temperature).double()
    plain = IBQ(3, size).double()
    for each in (quantizer, plain):
        each.set_codebook(normal(seed, size, 3))
    z = normal(seed + 1, n + 1, 3).requires_grad_()
    mask = torch.arange(n + 1) < n
    log_p = (z[:n] @ quantizer.embedding.T / temperature).log_softmax(-1)
    mean = log_p.exp().mean(0)
    entropy = -(log_p.exp() * log_p).sum(-1).mean() + (mean * mean.log()).sum()
    actual = quantizer(z, mask).loss
    expected = plain(z, mask).loss + 0.5 * entropy
    # Some hundred roundings of logits below 30, of logarithms and of their products.
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-11)
    to_z, to_codes = torch.autograd.grad(actual, [z, quantizer.embedding])
    parts = torch.autograd.grad(expected, [z, quantizer.embedding, plain.embedding], allow_unused=True)
    torch.testing.assert_close(to_z, parts[0], rtol=0, atol=1e-11)
    torch.testing.assert_close(to_codes, parts[1] + parts[2], rtol=0, atol=1e-11)


def test_at_first_a_vector_gets_a_gradient_as_large_as_the_decoders() -> None:
    """At a nearly uniform softmax it is the codes' covariance times the decoder's: that of N(0, 1) is one."""
    torch.manual_seed(0)
    quantizer = IBQ(32, 1024, commitment_weight=0.0, codebook_weight=0.0, double_weight=0.0)
    z, g = (1e-3 * torch.randn(20, 32)).requires_grad_(), torch.randn(20, 32)
    (gradient,) = torch.autograd.grad(quantizer(z).quantized, z, g)
    # The sample covariance of K codes is off by 2√(D/K) in its norm.
    assert abs(gradient.norm() / g.norm() - 1) < 2 * (32 / 1024) ** 0.5


def test_every_code_gets_a_gradient_and_those_of_vq_do_not() -> None:
    z, g = normal(0, 5, 3), normal(1, 5, 3)
    for quantizer in (IBQ(3, 32).double(), VectorQuantizer(3, 32, decoder_gradient=True).double()):
        out = quantizer(z)
        ((out.quantized * g).sum() + out.loss).backward()
        moved = (quantizer.embedding.grad != 0).any(-1)
        chosen = torch.zeros(32, dtype=torch.bool).index_fill(0, out.indices, value=True)
        assert not chosen.all()
        assert torch.equal(moved, chosen | isinstance(quantizer, IBQ))


def test_the_code_is_that_of_the_largest_product_and_not_the_nearest() -> None:
    quantizer = IBQ(1, 2)
    quantizer.set_codebook(torch.tensor([[1.0], [5.0]]))
    z = torch.tensor([[1.0], [-1.0]])
    assert quantizer.encode(z).tolist() == quantizer(z).indices.tolist() == [1, 0]


@pytest.mark.parametrize("exponent", [20, 24, 60, 120])
def test_a_vector_whose_logits_float32_does_not_resolve_gets_no_rounding_for_a_gradient(exponent: int) -> None:
    """Two codes along it that differ by ulps: below 2²³ the softmax tells them apart, and beyond nothing does."""
    quantizer = IBQ(2, 2, commitment_weight=0.0, codebook_weight=0.0)
    quantizer.set_codebook(torch.tensor([[1.0, 1.0], [1.0 - 2.0**-21, -1.0]]))
    z = torch.tensor([[2.0**exponent, 0.0], [0.3, 0.2]], requires_grad=True)
    out = quantizer(z)
    to_z, to_codes = torch.autograd.grad(out.loss + out.quantized.sum(), [z, quantizer.embedding])
    assert to_z.isfinite().all()
    assert to_codes.isfinite().all()
    # What the double loss and the value give without a softmax.
    direct = quantizer.double_weight * 2 * (z - out.quantized).detach() / z.numel()
    assert torch.allclose(to_z[0], direct[0], rtol=8 * 2.0**-24, atol=0) == (exponent > 23)
    assert (to_z[1] != direct[1]).any()


def test_a_gradient_at_the_end_of_the_range_stays_out_of_the_softmax() -> None:
    """Its product with a code leaves float32, and infinity times a vector of zeros would be NaN."""
    quantizer = IBQ(2, 2)
    quantizer.set_codebook(torch.tensor([[2.0**10, 1.0], [2.0**9, -1.0]]))
    z = torch.tensor([[2.0**126, 0.0], [0.3, 0.2]], requires_grad=True)
    out = quantizer(z)
    for gradient in torch.autograd.grad(out.loss, [z, quantizer.embedding]):
        assert gradient.isfinite().all()
