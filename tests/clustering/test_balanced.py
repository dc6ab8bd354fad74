"""Codes with capacities: they hold, every vector is served, and the total is near SciPy's smallest one."""

from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from benchmarks.allocations import largest_allocation
from quantizers.clustering import costs as cost_blocks
from quantizers.clustering.auction import auction
from quantizers.clustering.augmenting import Moves, place_remaining
from quantizers.clustering.balanced import TOLERANCE, Method, balanced_codes
from quantizers.clustering.costs import Costs
from quantizers.clustering.places import Places
from quantizers.kernels.nearest.operation import nearest_code
from tests.cases import normal
from tests.effort import examples

Problem = tuple[Tensor, Tensor, Tensor]
ROUNDINGS = 1e-12  # relative: of a total of at most 80 distances of 3 channels in float64, with room
methods = pytest.mark.parametrize("method", ["auction", "sinkhorn"])


@st.composite
def problems(draw: st.DrawFn, *, grid: bool | None = None) -> Problem:
    """Vectors [N, D], codes [K, D] and capacities [K] that suffice; on a grid, most distances are equal."""
    count, size, dim, spare = (draw(st.integers(*ends)) for ends in ((1, 80), (1, 12), (1, 3), (0, 20)))
    seed = draw(st.integers(0, 999))
    x, codes = normal(seed, count, dim) + draw(st.sampled_from([0.0, 2.0])), normal(seed + 1, size, dim)
    if draw(st.booleans()) if grid is None else grid:
        x, codes = x.round(), codes.round()
    owners = torch.randint(size, (count + spare,), generator=torch.Generator().manual_seed(seed))
    return x, codes, owners.bincount(minlength=size)


def distances(x: Tensor, codes: Tensor) -> Tensor:
    return torch.cdist(x, codes, compute_mode="donot_use_mm_for_euclid_dist").square()


def smallest_total(squared: Tensor, capacities: Tensor) -> float:
    """The smallest total of [N, K] costs, by an assignment to one column per place."""
    places = squared.repeat_interleave(capacities, 1)
    return float(places[linear_sum_assignment(places.numpy())].sum())


def total(squared: Tensor, indices: Tensor) -> float:
    return float(squared.gather(1, indices[:, None]).sum())


@methods
@given(problem=problems())
def test_every_vector_gets_a_code_and_no_code_too_many(method: Method, problem: Problem) -> None:
    x, codes, capacities = problem
    indices = balanced_codes(x, codes, capacities, method=method)
    assert ((indices >= 0) & (indices < codes.shape[0])).all()
    assert (indices.bincount(minlength=codes.shape[0]) <= capacities).all()


@methods
@given(problem=problems(), exponent=st.integers(-18, 18), spread=st.sampled_from([0.0, 1e-7, 1.0]))
def test_codes_that_are_equally_near_are_given_out(
    method: Method, problem: Problem, exponent: int, spread: float
) -> None:
    """Of any size, also where all vectors are equal: no difference of distances sets a temperature."""
    x, codes, capacities = problem
    x = (x[:1] + spread * (x - x[:1])) * 10.0**exponent
    codes = codes[:1].expand_as(codes) * 10.0**exponent
    indices = balanced_codes(x, codes, capacities, method=method)
    assert (indices >= 0).all()
    assert (indices.bincount(minlength=codes.shape[0]) <= capacities).all()


@examples(50)
@given(problem=problems())
def test_the_total_is_within_a_hundredth_of_the_smallest(problem: Problem) -> None:
    x, codes, capacities = problem
    squared = distances(x, codes)
    best = smallest_total(squared, capacities)
    assert total(squared, balanced_codes(x, codes, capacities)) <= (1 + TOLERANCE) * best + ROUNDINGS * (1 + best)


@examples(50)
@given(problem=problems(), epsilon=st.sampled_from([1e-3, 0.1, 1.0, 100.0]), left=st.sampled_from([0.0, 1.0, 5.0]))
def test_prices_prove_that_the_total_is_within_n_epsilon(problem: Problem, epsilon: float, left: float) -> None:
    """ε-CS after the auction and after each path, for any number of vectors that the paths place."""
    x, codes, capacities = (problem[0], *(each[problem[2] > 0] for each in problem[1:]))
    if codes.shape[0] < 2:
        return
    costs = Costs.of(x, codes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("quantizers.clustering.auction.LEFT", left)
        places = auction(costs, capacities, epsilon)
    everyone = torch.arange(x.shape[0])
    moves = Moves(costs, places)
    for vector in [None, *places.waiting().tolist()]:
        if vector is not None:
            moves.place(vector)
        placed = everyone[places.indices >= 0]
        offers = costs.at(placed) + places.thresholds
        chosen = offers.gather(1, places.indices[placed][:, None])[:, 0]
        # Prices are sums of at most a few hundred terms of the size of the costs and ε.
        slack = ROUNDINGS * (1 + float(places.thresholds.max()))
        assert (chosen <= offers.amin(-1) + epsilon + slack).all()
        used = places.indices[placed].bincount(minlength=codes.shape[0])
        assert (used <= capacities).all()
        assert (places.thresholds >= 0).all()
        assert (places.thresholds[used < capacities] == 0).all()
    squared = distances(x, codes)
    best = smallest_total(squared, capacities)
    allowed = x.shape[0] * epsilon / costs.factor**2
    assert total(squared, places.indices) <= best + allowed * (1 + ROUNDINGS) + ROUNDINGS * (1 + best)


@examples(50)
@given(problem=problems())
def test_paths_alone_are_exact(problem: Problem) -> None:
    x, codes, capacities = (problem[0], *(each[problem[2] > 0] for each in problem[1:]))
    costs, places = Costs.of(x, codes), Places(x.shape[0], capacities, 0.0)
    place_remaining(costs, places)
    squared = distances(x, codes)
    best = smallest_total(squared, capacities)
    assert total(squared, places.indices) <= best + ROUNDINGS * (1 + best)


@methods
@given(problem=problems())
def test_where_there_are_places_for_all_the_nearest_code_is_chosen(method: Method, problem: Problem) -> None:
    x, codes, _ = problem
    nearest = nearest_code(x[None], codes[None])[0][0]
    assert torch.equal(balanced_codes(x, codes, x.shape[0], method=method), nearest)
    assert torch.equal(
        balanced_codes(x, codes, nearest.bincount(minlength=codes.shape[0]), method=method), nearest
    )


@methods
@given(problem=problems(grid=False), order=st.randoms(use_true_random=False))
def test_the_order_of_the_vectors_does_not_matter(method: Method, problem: Problem, order: Random) -> None:
    x, codes, capacities = problem
    shuffled = torch.tensor(order.sample(range(x.shape[0]), x.shape[0]))
    indices = balanced_codes(x, codes, capacities, method=method)[shuffled]
    again = balanced_codes(x[shuffled], codes, capacities, method=method)
    squared = distances(x[shuffled], codes)
    # Which vectors the paths place depends on the order, within ε; rounding may decide between equal shares.
    assert total(squared, again) == pytest.approx(total(squared, indices), rel=TOLERANCE)


@methods
@examples(10)
@given(problem=problems(), offset=st.sampled_from([-64.0, 1024.0]), exponent=st.sampled_from([-500, -20, 60, 400]))
def test_neither_origin_nor_unit_matter(method: Method, problem: Problem, offset: float, exponent: int) -> None:
    x, codes, capacities = problem
    x, codes = (each.mul(1024).round().div(1024) for each in (x, codes))  # so that the offset costs no rounding
    indices = balanced_codes(x, codes, capacities, method=method)
    scaled = balanced_codes(x * 2.0**exponent, codes * 2.0**exponent, capacities, method=method)
    moved = balanced_codes(x + offset, codes + offset, capacities, method=method)
    squared = distances(x, codes)
    assert total(squared, scaled) == pytest.approx(total(squared, indices), rel=TOLERANCE)
    assert total(squared, moved) == pytest.approx(total(squared, indices), rel=TOLERANCE)


@methods
@given(problem=problems(), dtype=st.sampled_from([torch.float16, torch.float32, torch.float64]))
def test_what_is_not_finite_takes_no_place(method: Method, problem: Problem, dtype: torch.dtype) -> None:
    x, codes, capacities = problem[0].to(dtype), problem[1].to(dtype), problem[2]
    broken = torch.arange(x.shape[0]) % 3 == 0
    more_codes = torch.cat([torch.full_like(codes[:1], torch.nan), codes])
    more_places = torch.cat([torch.full_like(capacities[:1], 99), capacities])
    dirty = x.masked_fill(broken[:, None], torch.inf)
    indices = balanced_codes(dirty, more_codes, more_places, method=method)
    assert (indices[broken] == -1).all()
    assert torch.equal(indices[~broken] - 1, balanced_codes(x[~broken], codes, capacities, method=method))


@methods
def test_equal_vectors_are_spread_over_the_nearest_codes(method: Method) -> None:
    codes = normal(0, 40, 5)
    indices = balanced_codes(torch.zeros(100, 5), codes, 3, method=method)
    assert indices.bincount(minlength=40).max() == 3
    if method == "auction":
        nearest = codes.square().sum(-1).argsort()[:34]
        assert set(indices.tolist()) == set(nearest.tolist())


@methods
def test_blocks_change_nothing(method: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    x, codes = normal(0, 300, 4) + 1, normal(1, 12, 4)
    indices = balanced_codes(x, codes, 25, method=method)
    monkeypatch.setattr(cost_blocks, "BLOCK", 36)
    assert torch.equal(balanced_codes(x, codes, 25, method=method), indices)


def test_there_is_no_matrix_of_n_by_k(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost_blocks, "BLOCK", 2**12)
    x, codes = normal(0, 2000, 8), normal(1, 64, 8)
    largest = largest_allocation(lambda: balanced_codes(x, codes, 40))
    assert largest < 2000 * 64 * 8 / 2


def test_what_does_not_fit_is_named() -> None:
    x, codes = torch.zeros(4, 2), torch.zeros(3, 2)
    with pytest.raises(
        ValueError, match="finite codes add up to 3, expected at least 4, the number of finite vectors"
    ):
        balanced_codes(x, codes, 1)
    with pytest.raises(ValueError, match=r"capacities has shape \(2,\), expected one per code: \(3,\)"):
        balanced_codes(x, codes, torch.tensor([2, 2]))
    with pytest.raises(ValueError, match="capacities has the value -1, expected integers of at least 0"):
        balanced_codes(x, codes, torch.tensor([2, 3, -1]))
    with pytest.raises(ValueError, match=r"capacities is 1\.5, expected an integer of at least 0"):
        balanced_codes(x, codes, 1.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"capacities has dtype torch\.float32, expected an integer dtype"):
        balanced_codes(x, codes, torch.ones(3))
    with pytest.raises(ValueError, match="method is 'hungarian', expected 'auction' or 'sinkhorn'"):
        balanced_codes(x, codes, 2, method="hungarian")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="2 channels in x but 5 in codebook"):
        balanced_codes(x, torch.zeros(3, 5), 2)
