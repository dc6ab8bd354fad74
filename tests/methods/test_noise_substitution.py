"""DiVeQ and NSVQ: the gradients of their expressions, and where the value of NSVQ lies."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from quantizers import NSVQ, DiVeQ, VectorQuantizer
from tests.cases import normal, seeded
from tests.effort import examples

EPS = torch.finfo(torch.float64).eps
seeds = st.integers(0, 2**31)
shapes = st.tuples(st.integers(1, 12), st.integers(1, 9), st.integers(1, 5))
scales = st.sampled_from([1e-3, 1.0, 1e3])


def noise_of(z: Tensor, seed: int = 7) -> Tensor:
    torch.manual_seed(seed)
    return torch.randn_like(z)


def expression(z: Tensor, codes: Tensor, vector: Tensor) -> Tensor:
    """z + ‖e − z‖ · sg[vector / ‖vector‖]."""
    return z + (codes - z).norm(dim=-1, keepdim=True) * (vector / vector.norm(dim=-1, keepdim=True)).detach()


def assert_gradients_of(quantizer: VectorQuantizer, z: Tensor, g: Tensor, vector: Tensor | None) -> None:
    """Those of the expression; without a vector the error itself is the direction."""
    out = seeded(quantizer, z)
    codes = quantizer.embedding[out.indices]
    written = expression(z, codes, codes - z if vector is None else codes - z + vector)
    actual = torch.autograd.grad(out.quantized, [z, quantizer.embedding], g)
    expected = torch.autograd.grad(written, [z, quantizer.embedding], g)
    # Two directions of D + 4 roundings each and a product of D terms, none larger than |g|, are summed over at
    # most N rows, in either computation; e − z rounds in both alike.
    n, dim = z.shape
    bound = 2 * (n + 1) * (4 * dim + 16) * EPS * g.norm(dim=-1).max()
    for a, b in zip(actual, expected, strict=True):
        assert ((a - b).abs() <= bound).all()


@examples(20)
@given(seed=seeds, shape=shapes, scale=scales, variance=st.sampled_from([0.0, 1e-3, 1.0]), training=st.booleans())
def test_diveq_has_the_expressions_gradient_and_the_codes_value(
    seed: int, shape: tuple[int, int, int], scale: float, variance: float, training: bool
) -> None:
    n, size, dim = shape
    quantizer = DiVeQ(dim, size, noise_variance=variance).double().train(training)
    z, g = (scale * normal(seed, n, dim)).requires_grad_(), normal(seed + 1, n, dim)
    noise = variance**0.5 * noise_of(z.detach()) if training else None
    assert_gradients_of(quantizer, z, g, noise)
    out = quantizer(z)
    assert torch.equal(out.quantized, quantizer.embedding[out.indices])
    assert torch.equal(out.indices, quantizer.encode(z))
    assert out.loss == 0


@examples(20)
@given(seed=seeds, shape=shapes, scale=scales)
def test_nsvq_is_noise_as_long_as_the_error(seed: int, shape: tuple[int, int, int], scale: float) -> None:
    n, size, dim = shape
    quantizer = NSVQ(dim, size).double()
    z, g = (scale * normal(seed, n, dim)).requires_grad_(), normal(seed + 1, n, dim)
    out = seeded(quantizer, z)
    codes = quantizer.embedding[out.indices]
    error = (codes - z).norm(dim=-1)
    # z + r and its difference to z round by ε of their size each; r itself by D + 8 roundings of its length.
    bound = EPS * (4 * (z.norm(dim=-1) + error) + (dim + 8) * error)
    assert (((out.quantized - z).norm(dim=-1) - error).abs() <= bound).all()
    written = expression(z, codes, noise_of(z))
    assert ((out.quantized - written).norm(dim=-1) <= 2 * bound).all()
    actual = torch.autograd.grad(out.quantized, [z, quantizer.embedding], g)
    expected = torch.autograd.grad(written, [z, quantizer.embedding], g)
    # As in `assert_gradients_of`.
    tolerance = 2 * (n + 1) * (4 * dim + 16) * EPS * g.norm(dim=-1).max()
    for a, b in zip(actual, expected, strict=True):
        assert ((a - b).abs() <= tolerance).all()
    assert_gradients_of(quantizer.eval(), z, g, None)
    assert torch.equal(quantizer(z).quantized, quantizer.embedding[quantizer.encode(z)])


def test_nsvq_goes_in_every_direction_alike() -> None:
    """The mean m of N unit vectors has E‖m‖ ≤ 1/√N, and another vector moves it by at most 2/N.

    McDiarmid: ‖m‖ > (1 + t)/√N with probability below exp(−t²/2), 1.5·10⁻⁸ at t = 6. The same holds for the mean
    of nnᵀ − I/D, whose terms have a norm below 1 and the mean zero if the directions are uniform.
    """
    n, dim = 20_000, 3
    quantizer = NSVQ(dim, 16).double()
    z = normal(0, 1, dim).expand(n, dim)
    noise = quantizer(z).quantized.detach() - z
    directions = noise / noise.norm(dim=-1, keepdim=True)
    moment = directions.T @ directions / n - torch.eye(dim, dtype=torch.float64) / dim
    assert directions.mean(0).norm() <= 7 / n**0.5
    assert moment.norm() <= 7 / n**0.5


@pytest.mark.parametrize("build", [DiVeQ, NSVQ])
@pytest.mark.parametrize("training", [True, False])
def test_a_vector_that_is_its_code_moves_none(build, training: bool) -> None:  # type: ignore[no-untyped-def]
    quantizer = build(4, 8).train(training)
    z = quantizer.codebook.detach().clone().requires_grad_()
    out, g = quantizer(z), torch.randn(8, 4)
    assert torch.equal(out.quantized, z)
    to_z, to_codes = torch.autograd.grad(out.quantized, [z, quantizer.embedding], g)
    assert torch.equal(to_z, g)
    assert (to_codes == 0).all()


@pytest.mark.parametrize("build", [DiVeQ, NSVQ])
def test_codes_learn_without_a_loss_of_their_own(build) -> None:  # type: ignore[no-untyped-def]
    """From the decoder's gradient alone: twenty steps on ‖q − x‖² bring the codes nearer to their vectors."""
    quantizer = build(2, 4)
    x = normal(0, 200, 2, dtype=torch.float32)
    before = copy.deepcopy(quantizer).eval()(x).quantized.sub(x).square().mean()
    optimizer = torch.optim.SGD(quantizer.parameters(), lr=1.0)
    for _ in range(20):
        optimizer.zero_grad()
        (quantizer(x).quantized - x).square().mean().backward()
        optimizer.step()
    assert quantizer.eval()(x).quantized.sub(x).square().mean() < before


def test_noise_variance_is_checked() -> None:
    for variance in (-1e-3, float("nan")):
        with pytest.raises(ValueError, match=r"noise_variance is .*, expected a number of at least 0"):
            DiVeQ(4, 8, noise_variance=variance)
