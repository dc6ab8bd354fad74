"""OptVQ: what is assigned in training and in evaluation, and what it learns from it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from quantizers import OptVQ, VectorQuantizer
from quantizers.codebooks.optvq import standardized
from quantizers.kernels.transport.operation import sinkhorn_potentials
from tests.cases import normal
from tests.effort import examples
from tests.kernels.test_transport import plan

EPS = torch.finfo(torch.float64).eps
seeds = st.integers(0, 2**31)


def clustered(seed: int, count: int) -> Tensor:
    """Vectors in one narrow cluster, away from most codes."""
    return 3 + 0.3 * normal(seed, count, 4)


def test_codes_are_used_equally_where_the_nearest_are_few() -> None:
    """The codes' shares are within 2·mean(1 − max p) of the plan's marginal, in sum: what the plan spreads."""
    n, size, temperature, iterations = 512, 32, 0.003, 200
    quantizer = OptVQ(4, size, temperature=temperature, iterations=iterations).double()
    z, valid = clustered(0, n), torch.ones(n, dtype=torch.bool)
    assigned = torch.bincount(quantizer(z).indices, minlength=size)
    x, codes = standardized(z, quantizer.embedding.detach(), valid)
    keys, bias = 2 / temperature * codes, -codes.square().sum(-1) / temperature
    p = plan(x, keys, bias + sinkhorn_potentials(x, keys, bias, valid, iterations))
    spread = 2 * float((1 - p.amax(-1)).mean())
    off = float((assigned / n - 1 / size).abs().sum())
    assert off <= spread + float((p.mean(0) - 1 / size).abs().sum()) + 8 * size * EPS
    assert spread < 0.5, "the plan says little about indices"
    assert (assigned > 0).all()
    assert len(quantizer.encode(z).unique()) < size / 2


def test_the_defaults_use_most_codes_where_the_nearest_are_few() -> None:
    quantizer = OptVQ(4, 64)
    z = clustered(1, 2048).float()
    assert len(quantizer(z).indices.unique()) > 0.8 * 64
    assert len(quantizer.encode(z).unique()) < 0.2 * 64


@examples(15)
@given(seed=seeds, n=st.integers(1, 20), training=st.booleans())
def test_loss_and_gradients_are_vqs_of_the_assigned_codes(seed: int, n: int, training: bool) -> None:
    quantizer = OptVQ(3, 8, commitment_weight=0.5, codebook_weight=2.0).double().train(training)
    z, g = normal(seed, n, 3).requires_grad_(), normal(seed + 1, n, 3)
    out = quantizer(z)
    codes = quantizer.embedding[out.indices]
    loss = 0.5 * (z - codes.detach()).square().mean() + 2.0 * (z.detach() - codes).square().mean()
    assert torch.equal(out.quantized, codes)
    inputs = [z, quantizer.embedding]
    actual = torch.autograd.grad((out.quantized * g).sum() + out.loss, inputs)
    expected = torch.autograd.grad((z * g).sum() + loss, inputs)
    # Sums over at most 3N terms of a weight of 2 and a difference, which is of the size of z and codes.
    largest = float(2 + 4 * (z.detach().abs().max() + quantizer.embedding.detach().abs().max()) + g.abs().max())
    for a, b in zip((out.loss, *actual), (loss, *expected), strict=True):
        assert ((a - b).abs() <= 4 * (3 * n + 8) * EPS * largest**2).all()


def test_evaluation_and_encode_give_the_nearest_code() -> None:
    quantizer, vq = OptVQ(4, 32), VectorQuantizer(4, 32)
    vq.load_state_dict(quantizer.state_dict())
    z = clustered(2, 100).float()
    nearest = vq.encode(z)
    assert torch.equal(quantizer.encode(z), nearest)
    assert (quantizer(z).indices != nearest).any()
    assert torch.equal(quantizer.eval()(z).indices, nearest)


# Scale


@examples(15)
@given(
    seed=seeds,
    shape=st.tuples(st.integers(1, 20), st.integers(1, 9), st.integers(1, 4)),
    offset=st.sampled_from([0.0, 1.0, 100.0]),
    exponent=st.sampled_from([-40, 0, 40]),
)
def test_squared_distances_are_standardized(
    seed: int, shape: tuple[int, int, int], offset: float, exponent: int
) -> None:
    """Against the standard deviation of the whole N × K matrix, at any scale and offset."""
    n, size, dim = shape
    z, codebook = 2.0**exponent * (normal(seed, n, dim) + offset), 2.0**exponent * normal(seed + 1, size, dim)
    valid = torch.arange(n) % 4 != 1
    x, codes = standardized(z, codebook, valid)
    assert (x[~valid] == 0).all()
    distances, before = ((a[valid][:, None] - b).square().sum(-1) for a, b in ((x, codes), (z, codebook)))
    deviation = float(before.std(correction=0))
    if before.numel() == 1:  # one distance has none, and is left as it is
        torch.testing.assert_close(distances, before)
        return
    # The deviation of numbers of that size, which the offset makes up to 10⁵ times larger than it is.
    relative = 64 * (n + size + dim) * EPS * (1 + float(before.max()) / deviation)
    assert abs(float(distances.std(correction=0)) - 1) <= relative
    assert ((distances * deviation - before).abs() <= relative * before.max()).all()


def test_wrong_options_are_named() -> None:
    with pytest.raises(ValueError, match=r"temperature is 0, expected a number above 0"):
        OptVQ(4, 8, temperature=0)
    with pytest.raises(ValueError, match=r"iterations is 0, expected an integer of at least 1"):
        OptVQ(4, 8, iterations=0)
