"""Rotations from [D, D] sums: the best one for given codes, and one that balances groups of channels."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from quantizers.clustering.rotations import balanced_rotation, procrustes_rotation
from tests.cases import normal

U = 2.0**-53
NUDGE = 2.0**-40
seeds = st.integers(0, 2**31)
dims = st.integers(1, 12)
scales = st.sampled_from([1e-300, 1e-30, 1.0, 1e30, 1e300])
ranks = st.sampled_from([0, 1, 2, 12])


def orthogonal(seed: int, dim: int) -> Tensor:
    return torch.linalg.qr(normal(seed, dim, dim))[0]


def of_rank(seed: int, dim: int, rank: int) -> Tensor:
    return normal(seed, dim, rank) @ normal(seed + 1, rank, dim)


def assert_orthogonal(rotation: Tensor) -> None:
    """LAPACK's factors are orthogonal to a small multiple of D roundings, of which R is a product of two."""
    error = rotation.double() @ rotation.double().T - torch.eye(len(rotation))
    rounding = 2.0**-23 if rotation.dtype == torch.float32 else 0.0  # each value once: 2 · 2⁻²⁴ Σ|r_i||r_j|
    assert error.abs().max() <= rounding * (1 + 2.0**-20) + 32 * len(rotation) * U


# The best rotation for given codes


@given(seed=seeds, dim=dims, rank=ranks, scale=scales)
def test_it_is_orthogonal_also_without_full_rank_and_at_any_scale(
    seed: int, dim: int, rank: int, scale: float
) -> None:
    rotation = procrustes_rotation(of_rank(seed, dim, rank) * scale)
    assert_orthogonal(rotation)
    assert torch.equal(rotation, procrustes_rotation(of_rank(seed, dim, rank) * scale))


@given(seed=seeds, dim=dims, rank=ranks)
def test_no_other_rotation_has_a_larger_trace(seed: int, dim: int, rank: int) -> None:
    """The largest of tr(RC) is the sum of C's singular values, of which the nudge may cost 2 · 2⁻⁴⁰ each."""
    cross = of_rank(seed, dim, rank)
    best = float(torch.trace(procrustes_rotation(cross) @ cross))
    singular = torch.linalg.svdvals(cross)
    slack = (2 * NUDGE + 64 * dim * U) * dim * float(singular[0])
    assert abs(best - float(singular.sum())) <= slack
    for other in (orthogonal(seed + 2, dim), orthogonal(seed + 3, dim), torch.eye(dim).double()):
        assert float(torch.trace(other @ cross)) <= best + slack


@given(seed=seeds, dim=dims)
def test_it_finds_the_rotation_between_two_sets_of_vectors(seed: int, dim: int) -> None:
    """C = Σ z (Qz)ᵀ = (Σ zzᵀ) Qᵀ: the error of R is at most the errors in C over its smallest singular value."""
    z, rotation = normal(seed, 4 * dim + 20, dim), orthogonal(seed + 1, dim)
    singular = torch.linalg.svdvals(z).square()
    condition = float(singular[0] / singular[-1])
    found = procrustes_rotation(z.T @ (z @ rotation.T))
    assert (found - rotation).abs().max() <= 4 * dim * condition * (NUDGE + 64 * len(z) * U)


@given(seed=seeds, dim=dims, count=st.integers(1, 12))
def test_channels_without_values_stay_where_they_are(seed: int, dim: int, count: int) -> None:
    """Where several rotations are best, R is near the identity: roundings of C over the nudge. It is the identity
    for C = 0."""
    cross = torch.zeros(dim + count, dim + count, dtype=torch.float64)
    cross[:dim, :dim] = normal(seed, dim, dim)
    rotation = procrustes_rotation(cross)
    assert (rotation[dim:, dim:] - torch.eye(count)).abs().max() <= 32 * (dim + count) * U / NUDGE
    assert torch.equal(procrustes_rotation(torch.zeros_like(cross)), torch.eye(dim + count).double())


# Balanced groups


@given(seed=seeds, widths=st.lists(st.integers(1, 4), min_size=1, max_size=5), rank=ranks, scale=scales)
def test_groups_are_uncorrelated(seed: int, widths: list[int], rank: int, scale: float) -> None:
    dim = sum(widths)
    factor = of_rank(seed, dim, rank)
    covariance = factor @ factor.T
    rotation = balanced_rotation(covariance * scale, widths)
    assert_orthogonal(rotation)
    turned = rotation @ covariance @ rotation.T
    # Eigenvectors diagonalize a matrix that differs by some D roundings of its norm; two products add as many.
    off = turned - turned.diag().diag()
    assert off.abs().max() <= 64 * dim * U * float(torch.linalg.matrix_norm(covariance))
    start = 0
    for width in widths:
        values = turned.diag()[start : start + width]
        assert (values.diff() <= 64 * dim * U * float(torch.linalg.matrix_norm(covariance))).all()
        start += width
    largest = rotation.gather(1, rotation.abs().argmax(1, keepdim=True))
    assert (largest > 0).all()
    assert torch.equal(rotation, balanced_rotation(covariance * scale * 2.0**-3, widths))


def bound(values: list[float], groups: int) -> float:
    """Σ_m |Σ_m|^(1/w), to which the lower bound of the error is proportional."""
    width = len(values) // groups
    parts = [values[start : start + width] for start in range(0, len(values), width)]
    return sum(math.exp(sum(map(math.log, part)) / width) for part in parts)


@given(
    logarithms=st.integers(1, 4).flatmap(
        lambda width: st.lists(st.floats(-8, 8), min_size=2 * width, max_size=2 * width)
    ),
    seed=seeds,
)
def test_the_bound_of_the_error_is_below_that_of_eigenvalues_in_order(logarithms: list[float], seed: int) -> None:
    """The logarithms of the determinants of groups in order majorize any others, and exp is convex; the mean of
    the logarithms gives the least sum."""
    values = sorted(map(math.exp, logarithms), reverse=True)
    basis = orthogonal(seed, len(values))
    covariance = basis @ torch.tensor(values).double().diag() @ basis.T
    width = len(values) // 2
    rotation = balanced_rotation(covariance, [width] * 2)
    found = (rotation @ covariance @ rotation.T).diag()
    # An eigenvalue is off by some D roundings of the largest one, which may be e¹⁶ times as large.
    found_bound = bound(found.clamp(min=1e-300).tolist(), 2)
    slack = 1 + 64 * len(values) * U * math.exp(16)
    assert found_bound <= bound(values, 2) * slack
    assert found_bound * slack >= 2 * math.exp(sum(map(math.log, values)) / len(values))


@given(
    exponents=st.lists(st.integers(0, 6), min_size=2, max_size=6).map(lambda some: sorted(some, reverse=True)),
    groups=st.integers(1, 3),
)
def test_each_eigenvalue_goes_to_the_smallest_product(exponents: list[int], groups: int) -> None:
    """The paper's rule on eigenvalues 2^e along the axes, written out."""
    exponents = [e for e in exponents for _ in range(groups)]
    width = len(exponents) // groups
    members: list[list[int]] = [[] for _ in range(groups)]
    for exponent in (e - exponents[-1] for e in exponents):
        waiting = [m for m in members if len(m) < width]
        min(waiting, key=lambda m: (sum(m), len(m))).append(exponent)
    rotation = balanced_rotation(torch.tensor([2.0**e for e in exponents]).double().diag(), [width] * groups)
    chosen = rotation @ torch.tensor([float(e) for e in exponents]).double()
    found = (chosen - exponents[-1]).reshape(groups, width).tolist()
    assert found == [list(map(float, m)) for m in members]


def test_products_are_equal_where_they_can_be() -> None:
    rotation = balanced_rotation(torch.tensor([2.0, 16.0, 4.0, 8.0]).diag(), [2, 2])
    assert rotation.dtype == torch.float32
    values = torch.tensor([2.0, 16.0, 4.0, 8.0])
    assert (rotation @ values).tolist() == [16.0, 2.0, 8.0, 4.0]


def test_zero_spreads_the_channels() -> None:
    rotation = balanced_rotation(torch.zeros(4, 4), [2, 2])
    assert sorted(rotation.argmax(1).tolist()) == [0, 1, 2, 3]
    assert_orthogonal(rotation)


# Both


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_power_of_two_changes_nothing_up_to_the_ends_of_the_range(dtype: torch.dtype) -> None:
    """Of integers below eight, so that every multiple of the smallest number is one of the dtype."""
    matrix = torch.tensor([[3.0, 1.0, 2.0], [1.0, 7.0, 0.0], [2.0, 0.0, 5.0]], dtype=dtype)
    limits = torch.finfo(dtype)
    for factor in (limits.tiny * limits.eps, limits.tiny, 2.0 ** (math.frexp(limits.max)[1] - 3)):
        assert torch.equal(procrustes_rotation(matrix * factor), procrustes_rotation(matrix))
        assert torch.equal(balanced_rotation(matrix * factor, [2, 1]), balanced_rotation(matrix, [2, 1]))


# Errors


@pytest.mark.parametrize("name", ["covariance", "cross"])
def test_what_is_no_square_matrix(name: str) -> None:
    call = procrustes_rotation if name == "cross" else lambda matrix: balanced_rotation(matrix, [2, 1])
    for wrong, kind, sentence in (
        (torch.zeros(2, 3), ValueError, rf"{name} has shape \(2, 3\), expected \[D, D\] with D ≥ 1"),
        (torch.zeros(3), ValueError, rf"{name} has shape \(3,\), expected"),
        (torch.zeros(0, 0), ValueError, rf"{name} has shape \(0, 0\), expected"),
        (torch.full((3, 3), torch.inf), ValueError, f"{name} has values that are not finite"),
        (torch.zeros(3, 3, dtype=torch.int32), TypeError, f"{name} has dtype torch.int32, expected a floating"),
        ([[1.0]], TypeError, f"{name} is of type list, expected a tensor"),
    ):
        with pytest.raises(kind, match=sentence):
            call(wrong)
    for groups in itertools.chain([[2, 2]], [[]]):
        with pytest.raises(ValueError, match=r"groups is .* adds up to \d, expected 3 channels"):
            balanced_rotation(torch.eye(3), groups)
    with pytest.raises(ValueError, match=r"groups\[1\] is 0, expected an integer of at least 1"):
        balanced_rotation(torch.eye(3), [3, 0])
