"""Distinct codes: no code twice in a group, and the smallest total distance, compared with SciPy's assignment."""

from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from quantizers.clustering.distinct import distinct_codes
from quantizers.kernels.nearest.operation import nearest_code
from tests.cases import normal

Problem = tuple[Tensor, Tensor, Tensor, Tensor]
ROUNDINGS = 1e-12  # relative: a total of at most 60 distances of 3 channels in float64, with room


@st.composite
def problems(draw: st.DrawFn, *, grid: bool | None = None) -> Problem:
    """Vectors [N, D], codes [K, D], groups [N] and taken codes [G, K]; on a grid, most distances are equal."""
    count, size, dim, groups = (draw(st.integers(*ends)) for ends in ((0, 60), (1, 9), (1, 3), (1, 8)))
    seed = draw(st.integers(0, 999))
    x, codes = normal(seed, count, dim), normal(seed + 1, size, dim)
    if draw(st.booleans()) if grid is None else grid:
        x, codes = x.round(), codes.round()
    generator = torch.Generator().manual_seed(seed)
    taken = torch.rand(groups, size, generator=generator) < draw(st.sampled_from([0.0, 0.4, 1.0]))
    return x, codes, torch.randint(groups, (count,), generator=generator), taken


@given(problem=problems())
def test_each_group_gets_distinct_free_codes_at_the_smallest_total(
    problem: Problem,
) -> None:
    x, codes, groups, taken = problem
    indices = distinct_codes(x, codes, groups, taken)
    for group in groups.unique().tolist():
        members, free = (groups == group).nonzero().flatten(), (~taken[group]).nonzero().flatten()
        own = indices[members]
        served = own[own >= 0]
        assert served.shape[0] == min(members.shape[0], free.shape[0])
        assert served.unique().shape == served.shape
        assert not taken[group, served].any()
        if not served.shape[0]:
            continue
        costs = torch.cdist(x[members], codes[free], compute_mode="donot_use_mm_for_euclid_dist").square()
        best = costs[linear_sum_assignment(costs.numpy())].sum()
        places = torch.searchsorted(free, served)
        assert abs(costs[own >= 0].gather(1, places[:, None]).sum() - best) <= ROUNDINGS * (1 + best)


@given(problem=problems(grid=False), order=st.randoms(use_true_random=False), offset=st.sampled_from([0.0, 64.0]))
def test_order_names_and_origin_do_not_matter(problem: Problem, order: Random, offset: float) -> None:
    x, codes, groups, _ = problem
    shuffled = torch.tensor(order.sample(range(x.shape[0]), x.shape[0]), dtype=torch.int64)
    names = 1000 - 7 * groups
    indices = distinct_codes(x, codes, groups)
    assert torch.equal(distinct_codes(x[shuffled] + offset, codes + offset, names[shuffled]), indices[shuffled])


@given(problem=problems())
def test_a_group_of_one_vector_gets_its_nearest_code(problem: Problem) -> None:
    x, codes, *_ = problem
    assert torch.equal(
        distinct_codes(x, codes, torch.arange(x.shape[0])), nearest_code(x[None], codes[None])[0][0]
    )


@given(problem=problems(), dtype=st.sampled_from([torch.float16, torch.float32, torch.float64]))
def test_what_is_not_finite_takes_no_code(problem: Problem, dtype: torch.dtype) -> None:
    x, codes, groups, taken = problem
    x, codes = x.to(dtype), codes.to(dtype)
    broken = torch.arange(x.shape[0]) % 3 == 0
    dirty = x.masked_fill(broken[:, None], torch.nan)
    more = torch.cat([codes, torch.full_like(codes[:1], torch.inf)])
    indices = distinct_codes(dirty, more, groups, torch.cat([taken, torch.zeros_like(taken[:, :1])], 1))
    assert (indices[broken] == -1).all()
    assert torch.equal(indices[~broken], distinct_codes(x[~broken], codes, groups[~broken], taken))


def test_many_equal_vectors_take_the_codes_in_order_of_distance() -> None:
    codes = normal(0, 64, 5)
    indices = distinct_codes(torch.zeros(50, 5), codes, torch.zeros(50, dtype=torch.int64))
    assert set(indices.tolist()) == set(codes.square().sum(-1).argsort()[:50].tolist())


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_float32_squares_may_overflow(scale: float) -> None:
    x, codes, groups = normal(0, 20, 3), normal(1, 8, 3), torch.arange(20) // 5
    small, large = (distinct_codes((s * x).float(), (s * codes).float(), groups) for s in (1.0, scale))
    assert torch.equal(small, large)


def test_what_does_not_fit_is_named() -> None:
    x, codes, groups = torch.zeros(4, 2), torch.zeros(3, 2), torch.tensor([0, 0, 1, 1])
    with pytest.raises(ValueError, match=r"groups has shape \(3,\), expected \(4,\)"):
        distinct_codes(x, codes, groups[:3])
    with pytest.raises(TypeError, match=r"groups has dtype torch\.float32, expected an integer dtype"):
        distinct_codes(x, codes, groups.float())
    with pytest.raises(ValueError, match="taken has 2 columns, expected 3"):
        distinct_codes(x, codes, groups, torch.zeros(2, 2, dtype=torch.bool))
    with pytest.raises(IndexError, match="groups has values from 0 to 1, expected rows of taken: 0 to 0"):
        distinct_codes(x, codes, groups, torch.zeros(1, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="2 channels in x but 5 in codebook"):
        distinct_codes(x, torch.zeros(3, 5), groups)
