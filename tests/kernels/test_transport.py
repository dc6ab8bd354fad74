"""Entropic transport against the dense iteration, and how far its plan's marginal is from uniform."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from quantizers.kernels.transport import reference as transport
from quantizers.kernels.transport.operation import sinkhorn_potentials
from tests.cases import normal
from tests.effort import examples

EPS = torch.finfo(torch.float64).eps
seeds = st.integers(0, 2**31)
sharpnesses = st.sampled_from([0.1, 1.0, 10.0, 100.0])


def problem(seed: int, shape: tuple[int, int, int], sharpness: float) -> tuple[Tensor, Tensor, Tensor]:
    """Vectors [N, D], keys [K, D] and bias [K]; the logits are of the size of `sharpness`."""
    n, size, dim = shape
    return normal(seed, n, dim), sharpness * normal(seed + 1, size, dim), sharpness * normal(seed + 2, size)


def dense_potentials(logits: Tensor, iterations: int) -> Tensor:
    """Sinkhorn of [N, K] logits with both potentials written out: rows of mass 1/N, columns of mass 1/K."""
    n, size = logits.shape
    v = logits.new_zeros(size)
    for _ in range(iterations):
        u = -math.log(n) - torch.logsumexp(logits + v, 1)
        v = -math.log(size) - torch.logsumexp(logits + u[:, None], 0)
    return v


@examples(20)
@given(
    seed=seeds,
    shape=st.tuples(st.integers(1, 30), st.integers(1, 12), st.integers(1, 4)),
    iterations=st.integers(0, 6),
    sharpness=sharpnesses,
    budget=st.sampled_from([1, 40, 2**20]),
)
def test_potentials_are_those_of_the_dense_iteration(
    seed: int, shape: tuple[int, int, int], iterations: int, sharpness: float, budget: int
) -> None:
    n, size, dim = shape
    x, keys, bias = problem(seed, shape, sharpness)
    counts = normal(seed + 3, n) > -0.7
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transport, "SCORE_BUDGET", budget)
        actual = sinkhorn_potentials(x, keys, bias, counts, iterations)
    if not counts.any():
        assert (actual == 0).all()
        return
    logits = x[counts] @ keys.T + bias
    expected = dense_potentials(logits, iterations)
    # An iteration does not enlarge an error of v in the maximum norm, so that they add. Each adds those of the
    # logits, of two logarithms of sums of exponentials, and of their sums, all of the size of logits and v.
    largest = float(logits.abs().max() + expected.abs().max()) + math.log(n * size)
    assert ((actual - expected).abs() <= (iterations + 1) * 4 * (dim + n + size + 8) * EPS * largest).all()


def plan(x: Tensor, keys: Tensor, bias: Tensor) -> Tensor:
    return (x @ keys.T + bias).softmax(-1)


def marginal_bound(x: Tensor, keys: Tensor, bias: Tensor, iterations: int) -> float:
    """On ‖c − 1/K‖₁ of the plan's column marginal c after so many iterations: equation (4)."""
    logits = x @ keys.T + bias
    gap = (logits.logsumexp(-1) - math.log(len(keys)) - logits.mean(-1)).mean()
    return float((2 * gap / (iterations + 1)).sqrt())


@examples(20)
@given(
    seed=seeds,
    shape=st.tuples(st.integers(1, 40), st.integers(1, 12), st.integers(1, 4)),
    iterations=st.sampled_from([0, 1, 5, 100]),
    sharpness=sharpnesses,
)
def test_the_plans_marginal_tends_to_uniform(
    seed: int, shape: tuple[int, int, int], iterations: int, sharpness: float
) -> None:
    """Within the bound for any number of iterations, which is 0 in the end; no vector without mass is in it."""
    n, size, dim = shape
    x, keys, bias = problem(seed, shape, sharpness)
    counts = torch.arange(n) % 3 != 1
    potentials = sinkhorn_potentials(x, keys, bias, counts, iterations)
    marginal = plan(x[counts], keys, bias + potentials).mean(0)
    off = float((marginal - 1 / size).abs().sum())
    # The exponents' own rounding: of numbers of the size of the logits, for each of the K columns.
    rounding = 8 * (dim + n + size) * EPS * float((x @ keys.T).abs().max() + bias.abs().max() + 50)
    assert off <= marginal_bound(x[counts], keys, bias, iterations) + rounding


@examples(10)
@given(seed=seeds)
def test_codes_of_unequal_capacities_get_their_shares(seed: int) -> None:
    x, keys, bias = problem(seed, (40, 5, 3), 1.0)
    shares = torch.arange(1.0, 6.0, dtype=torch.float64) / 15
    everyone = torch.ones(40, dtype=torch.bool)
    potentials = transport.sinkhorn_potentials(x, keys, bias, everyone, 2000, shares)
    used = (x @ keys.T + bias + potentials).softmax(-1).mean(0)
    # (4) with b = shares: the objective of the plan whose rows are all b is the mean below, at T = 2000.
    logits = x @ keys.T + bias
    start = (logits.logsumexp(-1) - logits @ shares + (shares * shares.log()).sum()).mean()
    assert float((used - shares).abs().sum()) ** 2 <= 2 / 2001 * float(start) + 1e-12
