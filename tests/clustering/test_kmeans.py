"""k-means: its inertia falls, its codes are means, each has a vector, and its seeds are those of k-means++."""

from collections import Counter
from itertools import pairwise, permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.allocations import largest_allocation
from quantizers.clustering import seeding
from quantizers.clustering.kmeans import _assigned, _lloyd, kmeans
from quantizers.kernels.common.vectors import normalize
from quantizers.kernels.nearest.operation import nearest_code
from tests.cases import normal
from tests.effort import examples

EPS = torch.finfo(torch.float32).eps
distances = pytest.mark.parametrize("distance", ["euclidean", "cosine"])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def searched(x: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Indices [N] and squared distances [N], in float64."""
    indices = nearest_code(x[None], codes[None])[0][0]
    return indices, (x.double() - codes[indices].double()).square().sum(-1)


def inertia(x: Tensor, codes: Tensor) -> float:
    return float(searched(x, codes)[1].sum())


@st.composite
def grids(draw: st.DrawFn) -> Tensor:
    """Vectors of few values: most of them equal to others, at equal distances from many."""
    count, dim, largest = draw(st.integers(1, 60)), draw(st.integers(2, 3)), draw(st.integers(1, 5))
    return torch.randint(-1, largest, (count, dim), generator=seeded(draw(st.integers(0, 99)))).float()


def assert_codes_are_taken(x: Tensor, codes: Tensor) -> None:
    """What is guaranteed: each code has a vector, or each distinct vector is a code; no code twice."""
    distinct = x.unique(dim=0)
    assert torch.unique(codes, dim=0).shape == codes.shape
    if distinct.shape[0] >= codes.shape[0]:
        assert (searched(x, codes)[0].bincount(minlength=codes.shape[0]) > 0).all()
        return
    assert torch.equal(codes[: distinct.shape[0]].unique(dim=0), distinct)
    spread = (distinct - distinct.mean(0)).square().sum(-1).mean().sqrt() or distinct.norm() or torch.ones(())
    # Two roundings to float32 of values within the norm.
    moved = (codes - distinct[searched(codes, distinct)[0]]).norm(dim=-1).max()
    assert moved <= (1 + 1e-5) * 1e-3 * spread + 2 * EPS * distinct.norm(dim=-1).max()


# Lloyd's iterations


@distances
@examples(10)
@given(seed=st.integers(0, 999), count=st.integers(2, 200), size=st.integers(1, 30))
def test_inertia_never_rises(distance: str, seed: int, count: int, size: int) -> None:
    x = normal(seed, count, 3, dtype=torch.float32)
    x = normalize(x) if distance == "cosine" else x
    codes = [kmeans(x, size, distance=distance, iterations=i, generator=seeded(seed)) for i in range(5)]
    # A code that is off by δ changes Σ‖x − e‖² by at most 2δ Σ‖x − e‖ + Nδ²; it has about D + 4 roundings.
    delta = 7 * EPS * float(x.norm(dim=-1).max())
    for before, after in pairwise(codes):
        lengths = float(searched(x, before)[1].sqrt().sum())
        assert inertia(x, after) <= inertia(x, before) + 2 * delta * lengths + count * delta**2


@distances
@examples(10)
@given(seed=st.integers(0, 999), size=st.integers(1, 30), offset=st.sampled_from([0.0, 1030.0]))
def test_codes_end_as_the_means_of_their_vectors(distance: str, seed: int, size: int, offset: float) -> None:
    x = offset + normal(seed, 100, 3, dtype=torch.float32)
    codes = kmeans(x, size, distance=distance, iterations=200, generator=seeded(seed))
    assert torch.equal(codes, kmeans(x, size, distance=distance, iterations=201, generator=seeded(seed)))
    x = normalize(x) if distance == "cosine" else x
    indices = searched(x, codes)[0]
    means = torch.stack([x[indices == code].double().mean(0) for code in range(size)])
    means = normalize(means) if distance == "cosine" else means
    # Euclidean: the code is rounded once; the step to it is a rounded mean of rounded differences. Cosine:
    # of unit vectors, the sum, the squares' sum and its root, two divisions; no mean here is shorter than 0.1.
    step = (x - codes[indices]).abs().max()
    allowed = EPS * (0.51 * codes.abs().max() + 2 * step) if distance == "euclidean" else 10 * 8 * EPS
    assert (codes - means).abs().max() <= allowed


@distances
@examples(25)
@given(x=grids(), size=st.integers(1, 40), iterations=st.integers(0, 3), seed=st.integers(0, 99))
def test_each_code_has_a_vector_or_each_vector_a_code(
    distance: str, x: Tensor, size: int, iterations: int, seed: int
) -> None:
    if distance == "cosine":
        x = x[(x != 0).any(-1)]
        if not x.shape[0]:
            return
    codes = kmeans(x, size, distance=distance, iterations=iterations, generator=seeded(seed))
    assert_codes_are_taken(normalize(x) if distance == "cosine" else x, codes)
    if distance == "cosine":
        assert ((codes.double().norm(dim=-1) - 1).abs() <= (x.shape[1] + 4) * EPS).all()


@examples(10)
@given(seed=st.integers(0, 999), size=st.integers(2, 40))
def test_codes_without_a_vector_move_to_the_farthest(seed: int, size: int) -> None:
    """All codes but one are out of reach; of vectors that are there three times, the farthest get the others."""
    x = normal(seed, 2 * size, 2, dtype=torch.float32)
    codes = torch.cat([torch.zeros(1, 2), 1e3 + torch.arange(size - 1.0)[:, None].expand(-1, 2)])
    assignment = _assigned(x.repeat(3, 1), codes, None)
    assert (assignment.counts > 0).all()
    assert assignment.reseeded
    moved = assignment.codes[1:]
    lengths = x.norm(dim=-1)
    # The first round offers size − 1 places to copies of at least (size − 1) / 3 vectors.
    farthest = x[lengths.topk(-(-(size - 1) // 3)).indices]
    assert all((moved == row).all(-1).any() for row in farthest)
    assert torch.unique(moved, dim=0).shape == moved.shape


def test_a_code_that_moves_may_take_the_last_vector_of_another() -> None:
    """The first moves to 10, as near to 13 as 16 is: the tie goes to it, and 16 has to move as well."""
    x, start = torch.tensor([[10.0], [13.0]]), torch.tensor([[-900.0], [16.0]])
    assert torch.equal(_lloyd(x, start, "euclidean", 0, None), x)


# Where the data is


@distances
@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1e-20, 0.0), (1e18, 0.0), (1.0, 1000.0)])
def test_clusters_far_apart_are_all_found(distance: str, scale: float, offset: float) -> None:
    """By the seeds alone: a cluster that has one weighs 10⁻⁶ of another at most."""
    centres = torch.nn.functional.one_hot(torch.arange(24), 24).float()
    width = 1e-4 if not offset else 1e-3
    x = (centres[:, None] + width * normal(0, 24, 6, 24, dtype=torch.float32)).flatten(0, 1)
    x = scale * (x + (offset if distance == "euclidean" else 0.0))
    rows = normalize(x) if distance == "cosine" else x
    for iterations in (0, 5):
        codes = kmeans(x, 24, distance=distance, iterations=iterations)
        found = (codes[:, None] - rows[::6]).double().norm(dim=-1).argmin(-1)
        assert (found.bincount(minlength=24) == 1).all()


@examples(6)
@given(seed=st.integers(0, 999), size=st.integers(1, 80), exponent=st.integers(-100, 100))
def test_a_scale_of_a_power_of_two_changes_no_bit(seed: int, size: int, exponent: int) -> None:
    x = normal(seed, 60, 3, dtype=torch.float32)
    scaled = kmeans(x * 2.0**exponent, size, generator=seeded(seed))
    assert torch.equal(scaled, kmeans(x, size, generator=seeded(seed)) * 2.0**exponent)


@examples(6)
@given(seed=st.integers(0, 999), size=st.integers(1, 60))
def test_an_offset_moves_the_codes_and_nothing_else(seed: int, size: int) -> None:
    """On a grid that float32 holds at the offset too, so that all distances between vectors are the same."""
    x = torch.randint(-999, 999, (200, 3), generator=seeded(seed)) / 64
    for iterations in (0, 1):
        here, there = (kmeans(v, size, iterations=iterations, generator=seeded(seed)) for v in (x, x + 1024))
        allowed = EPS * 1040 * iterations  # each mean is rounded twice, by half an eps
        assert (here + 1024.0 - there).abs().max() <= allowed


@pytest.mark.parametrize("value", [0.0, 1.0, -1e-20, 1e18, 1e30, 1e-42])
@pytest.mark.parametrize("dim", [1, 3])
def test_copies_of_one_vector_stay_near_it(value: float, dim: int) -> None:
    x = torch.full((5, dim), value)
    codes = kmeans(x, 100)
    assert torch.equal(codes[0], x[0])
    assert torch.unique(codes, dim=0).shape[0] == 100
    if abs(value) > 1e-37:  # below, a thousandth of it has no room for 99 values
        assert ((codes - x[0]).norm(dim=-1) <= 1.0001e-3 * x[0].norm()).all()


# Seeds


def test_seeds_are_drawn_as_by_k_means_plus_plus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the second and third come from one pass: Pearson's statistic over all orders of four vectors."""
    monkeypatch.setattr(seeding, "CANDIDATES", 20)
    x, draws, runs = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.5], [2.0, 2.0]]), seeded(), 400
    squared = torch.cdist(x, x).square()
    found = Counter(tuple(map(tuple, seeding.seeds(x, 3, draws, None).tolist())) for _ in range(runs))
    statistic = 0.0
    for order in permutations(range(4), 3):
        first, both = squared[order[0]], squared[list(order[:2])].amin(0)
        expected = float(runs / 4 * first[order[1]] / first.sum() * both[order[2]] / both.sum())
        statistic += (found[tuple(map(tuple, x[list(order)].tolist()))] - expected) ** 2 / expected
    # 23 degrees of freedom: above 70 once in 10⁶.
    assert statistic < 70


@distances
def test_a_generator_makes_it_repeatable(distance: str) -> None:
    x = torch.randn(60, 3)
    state = torch.get_rng_state()
    first, again, other = (kmeans(x, 12, distance=distance, generator=seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)
    generator = seeded(1)
    kmeans(x, 12, generator=generator)
    assert not torch.equal(kmeans(x, 12, generator=generator), first)
    torch.manual_seed(3)
    first, other = kmeans(x, 12), kmeans(x, 12)
    assert not torch.equal(first, other)
    torch.manual_seed(3)
    assert torch.equal(kmeans(x, 12), first)


def test_inertia_is_that_of_scikit_learn() -> None:
    """Its seeds are the best of several candidates each, so its inertia may be somewhat lower."""
    cluster = pytest.importorskip("sklearn.cluster")
    x = normal(0, 2000, 8, dtype=torch.float32)
    theirs = cluster.KMeans(64, n_init=1, max_iter=20, random_state=0).fit(x.numpy())
    centres = torch.from_numpy(theirs.cluster_centers_.astype(np.float32))
    assert inertia(x, kmeans(x, 64, iterations=20)) <= 1.05 * inertia(x, centres)


# Dtypes, memory, errors


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    x = normal(0, 100, 3, dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16):
        codes = kmeans(x, 9, generator=seeded())
    assert codes.dtype == torch.float32
    assert torch.equal(codes, kmeans(x.float(), 9, generator=seeded()))


def test_float64_stays_float64() -> None:
    """Two clusters that float32 cannot tell apart."""
    x = torch.tensor([[1.0], [1 + 2e-12], [1 + 1e-9], [1 + 1.002e-9]], dtype=torch.float64).requires_grad_()
    codes = kmeans(x, 2)
    assert codes.dtype == torch.float64
    assert not codes.requires_grad
    expected = torch.tensor([[1 + 1e-12], [1 + 1.001e-9]], dtype=torch.float64)
    assert (codes.sort(0).values - expected).abs().max() <= 2 * torch.finfo(torch.float64).eps


def test_no_tensor_of_n_by_k() -> None:
    """Not even of one byte an element."""
    n, size = 4096, 256
    x = normal(0, n, 4, dtype=torch.float32)
    assert largest_allocation(lambda: kmeans(x, size, iterations=1)) < n * size


def test_zero_vectors_have_no_direction() -> None:
    x = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 2.0], [0.0, 0.0], [5.0, 0.0]])
    codes = kmeans(x, 2, distance="cosine")
    assert torch.equal(codes.sort(0).values, torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    # A mean of zero has none either: the code stays.
    assert kmeans(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), 1, distance="cosine").abs().equal(torch.eye(2)[:1])


@examples(10)
@given(seed=st.integers(0, 999), size=st.integers(1, 30), count=st.integers(1, 80), exponent=st.integers(-60, 120))
def test_by_angle_codes_have_the_mean_length_of_their_vectors(
    seed: int, size: int, count: int, exponent: int
) -> None:
    """And the directions of spherical k-means; where vectors are too few, copies have the mean length of all."""
    x = 2.0**exponent * normal(seed, count, 3, dtype=torch.float32)
    codes = kmeans(x, size, distance="angle", generator=seeded(seed))
    directions = kmeans(x, size, distance="cosine", generator=seeded(seed))
    indices, lengths = searched(normalize(x), directions)[0], x.double().norm(dim=-1)
    counts = indices.bincount(minlength=size)
    means = torch.stack([lengths[indices == code if counts[code] else slice(None)].mean() for code in range(size)])
    expected = directions.double() * means[:, None]
    # A length is a sum of D rounded products with a unit vector of D + 4 roundings; N sums and quotients.
    assert ((codes - expected).abs() <= (3 + 7 + 2 * count + 2) * EPS * means.max()).all()


@pytest.mark.parametrize(
    ("x", "options", "error", "message"),
    [
        (torch.zeros(3), {}, ValueError, r"x has shape \(3,\), expected \[N, D\]"),
        (torch.zeros(3, 0), {}, ValueError, r"x has shape \(3, 0\), expected at least one channel"),
        (torch.zeros(0, 3), {}, ValueError, r"x has shape \(0, 3\), expected a vector on at least one rank"),
        (torch.zeros(5, 3), {"distance": "cosine"}, ValueError, "expected a vector that is not zero"),
        (torch.tensor([[1.0], [torch.nan]]), {}, ValueError, "x contains 1 vectors that are not finite"),
        (torch.tensor([[1.0], [torch.inf]]), {"distance": "cosine", "size": 1}, ValueError, "not finite"),
        (torch.zeros(3, 3, dtype=torch.int64), {}, TypeError, "x has dtype torch.int64"),
        (torch.ones(3, 3), {"size": 0}, ValueError, "size is 0, expected an integer of at least 1"),
        (torch.ones(3, 3), {"iterations": -1}, ValueError, "iterations is -1"),
        (torch.ones(3, 3), {"distance": "manhattan"}, ValueError, "distance is 'manhattan'"),
        (torch.ones(3, 1), {"distance": "cosine", "size": 3}, ValueError, "size is 3, expected at most 2"),
        (torch.ones(3, 1), {"distance": "angle", "size": 3}, ValueError, "distance='angle', one channel has two"),
        (torch.ones(3, 3), {"process_group": "all"}, TypeError, "process_group is 'all'"),
    ],
)
def test_wrong_arguments_are_named(x: Tensor, options: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        kmeans(x, **{"size": 2, **options})
