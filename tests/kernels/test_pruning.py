"""A search that leaves codes out finds what a search through all codes finds."""

from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Generator, Tensor

from quantizers.kernels.common.compiled.library import library
from quantizers.kernels.nearest import cached, pruning, reference
from quantizers.kernels.nearest.history import LEAST_CODES, PATIENCE, History, Pairs, Shape
from quantizers.kernels.nearest.operation import nearest_code
from quantizers.kernels.nearest.packed import pack
from quantizers.kernels.nearest.pruning import use_pruning
from quantizers.kernels.nearest.tree import Order, fit, grow
from tests.implementations import COMPILED, under

Draw = Callable[[Generator, int, int], Tensor]


def normal(generator: Generator, count: int, dim: int) -> Tensor:
    return torch.randn(count, dim, generator=generator)


def clustered(generator: Generator, count: int, dim: int) -> Tensor:
    """Around twelve points, which are the same for all calls."""
    middles = torch.randn(12, dim, generator=Generator().manual_seed(12))
    chosen = torch.randint(0, 12, (count,), generator=generator)
    return middles[chosen] + 0.05 * normal(generator, count, dim)


def on_a_line(generator: Generator, count: int, dim: int) -> Tensor:
    """The rest that the leading axes leave is rounding alone."""
    return torch.randn(count, 1, generator=generator) * torch.ones(dim) + 3


def on_a_lattice(generator: Generator, count: int, dim: int) -> Tensor:
    """Many codes are equal, and many equally near."""
    return torch.randint(-1, 2, (count, dim), generator=generator).float()


def far_apart(generator: Generator, count: int, dim: int) -> Tensor:
    return normal(generator, count, dim) + 1e4 * torch.randint(0, 2, (count, 1), generator=generator)


def broken(generator: Generator, count: int, dim: int) -> Tensor:
    """Some numbers are not finite, and some are too large to be scored."""
    values = clustered(generator, count, dim)
    for value in (torch.nan, torch.inf, -torch.inf, 1e30, 3e38):
        values[torch.randint(0, count, (1,), generator=generator), 0] = value
    return values


DATA: dict[str, Draw] = {
    "normal": normal,
    "clustered": clustered,
    "mean 100, spread 0.1": lambda generator, count, dim: 100 + 0.1 * normal(generator, count, dim),
    "on a line": on_a_line,
    "on a lattice": on_a_lattice,
    "far apart": far_apart,
    "tiny": lambda generator, count, dim: 1e-21 * clustered(generator, count, dim),
    "huge": lambda generator, count, dim: 1e18 * clustered(generator, count, dim),
    "one point": lambda generator, count, dim: torch.ones(count, dim),
    "broken": broken,
}
INSTRUCTIONS = pytest.mark.parametrize("implementation", COMPILED)


@pytest.fixture(autouse=True)
def compiled() -> Iterator[None]:
    with under(COMPILED[0]):
        yield


@pytest.fixture(autouse=True)
def codebooks(monkeypatch: pytest.MonkeyPatch) -> cached.Codebooks:
    """An empty cache."""
    empty = cached.Codebooks(2**24)
    monkeypatch.setattr(pruning, "codebooks", empty)
    return empty


def search(x: Tensor, codebook: Tensor, mode: str) -> tuple[Tensor, Tensor, float | None]:
    """Indices, the bits of the squared distances, and the scored share."""
    with use_pruning(mode) as work:
        indices, distances = nearest_code(x[None], codebook[None])
    return indices, distances.view(torch.int32), work.share


def assert_same(x: Tensor, codebook: Tensor, mode: str = "always") -> None:
    expected, actual = search(x, codebook, "never"), search(x, codebook, mode)
    assert torch.equal(actual[0], expected[0])
    assert torch.equal(actual[1], expected[1])


@INSTRUCTIONS
@given(
    seed=st.integers(0, 2**31),
    sizes=st.tuples(st.integers(1, 200), st.integers(1, 900), st.sampled_from([1, 2, 3, 7, 8, 9, 16, 33])),
    rows=st.sampled_from(list(DATA)),
    codes=st.sampled_from(list(DATA)),
)
@example(seed=50410, sizes=(115, 427, 8), rows="huge", codes="far apart")  # far from all codes
def test_leaves_nothing_out_that_matters(
    implementation: str, seed: int, sizes: tuple[int, int, int], rows: str, codes: str
) -> None:
    """Bit for bit the result of all codes: for any vectors and codes, in all sizes of the last leaf and tile.

    It is the reference's, also where rounding to a vector's own length hides how far the codes are apart.
    """
    (n, k, d), generator = sizes, Generator().manual_seed(seed)
    x, codebook = DATA[rows](generator, n, d), DATA[codes](generator, k, d)
    with under(implementation):
        assert_same(x, codebook)
        indices, _, _ = search(x, codebook, "always")
    assert torch.equal(indices, reference.nearest_code(x[None], codebook[None])[0])


@INSTRUCTIONS
@given(
    seed=st.integers(0, 2**31),
    size=st.integers(60, 900),
    dim=st.sampled_from([1, 2, 8, 9, 33]),
    offset=st.floats(-50, 50),
)
def test_ties_at_the_edge_of_a_box(implementation: str, seed: int, size: int, dim: int, offset: float) -> None:
    """Vectors halfway between two codes, the lower of which may be the nearest corner of another leaf's box.

    Both distances are exact in the input and not in the frame of the codes, whose mean is rounded.
    """
    generator = Generator().manual_seed(seed)
    start = round(offset * 8) / 8
    ruler = torch.zeros(size, dim)
    ruler[:, 0] = start + torch.randperm(size, generator=generator) / 8
    halfway = torch.zeros(size - 1, dim)
    halfway[:, 0] = start + (torch.arange(size - 1) + 0.5) / 8
    with under(implementation):
        assert_same(halfway, ruler)


@INSTRUCTIONS
@pytest.mark.parametrize("dim", [2, 8, 24])
def test_leaves_most_out(implementation: str, dim: int) -> None:
    """Of vectors and codes in twelve clusters, most of the pairs between clusters."""
    generator = Generator().manual_seed(0)
    x, codebook = clustered(generator, 500, dim), clustered(generator, 3000, dim)
    with under(implementation):
        _, _, share = search(x, codebook, "always")
    assert share is not None
    assert share < 0.3


@given(seed=st.integers(0, 2**31), foreign=st.sampled_from(list(DATA)), dim=st.sampled_from([3, 9]))
def test_any_order_is_valid(seed: int, foreign: str, dim: int) -> None:
    """Even one that was made for another codebook, as after the codes have moved."""
    generator = Generator().manual_seed(seed)
    x, codebook, other = (clustered(generator, count, dim) for count in (100, 400, 400))
    other = DATA[foreign](generator, 400, dim)
    entry = pruning.codebooks.get(codebook)
    entry.history.order = grow(other, pack(other).centre)
    assert_same(x, codebook)


@INSTRUCTIONS
@given(
    seed=st.integers(0, 2**31),
    size=st.integers(1, 700),
    dim=st.sampled_from([1, 5, 8, 9, 40]),
    data=st.sampled_from(list(DATA)),
)
def test_an_order_has_each_code_once(implementation: str, seed: int, size: int, dim: int, data: str) -> None:
    codes = DATA[data](Generator().manual_seed(seed), size, dim)
    with under(implementation):
        order = grow(codes, pack(codes).centre)
    assert order.codes.sort().values.tolist() == list(range(size))
    assert not order.axes.isnan().any()


def coordinates(codes: Tensor, order: Order, centre: Tensor) -> Tensor:
    """Of codes [K, D] in float64: those along the axes, and of more than eight channels the length of the rest."""
    dim = codes.shape[1]
    axes = -order.axes[:, : dim if dim <= 8 else 4].double()
    centred = codes.double() - centre.double()
    along = centred @ axes
    rest = (centred.square().sum(1) - along.square().sum(1)).clamp(min=0).sqrt()
    return along if dim <= 8 else torch.cat([along, rest[:, None]], 1)


@given(
    seed=st.integers(0, 2**31),
    dim=st.sampled_from([1, 5, 8, 9, 40]),
    data=st.sampled_from(["normal", "clustered", "on a line"]),
)
def test_coordinates_do_not_exaggerate_distances(seed: int, dim: int, data: str) -> None:
    """Equation (13): the distance of the coordinates is at most that of the codes, up to rounding."""
    codes = DATA[data](Generator().manual_seed(seed), 60, dim)
    centre = pack(codes).centre
    mapped = coordinates(codes, grow(codes, centre), centre)
    lengths = (codes - centre).double().norm(dim=1)
    rounding = 2.0**-23 * dim * (lengths[:, None] + lengths[None])
    # A rest that vanishes is the root of a difference of squares: its error is the root of theirs.
    rounding = rounding + (2.0**-22 * dim) ** 0.5 * lengths.max() * (data == "on a line")
    assert (torch.cdist(mapped, mapped) <= torch.cdist(codes.double(), codes.double()) + rounding).all()


@given(seed=st.integers(0, 2**31), size=st.integers(1, 500), dim=st.sampled_from([1, 5, 8, 9, 40]))
def test_a_box_holds_its_codes(seed: int, size: int, dim: int) -> None:
    """Up to the error of the coordinates that is stored with the boxes."""
    codes = clustered(Generator().manual_seed(seed), size, dim)
    order = grow(codes, pack(codes).centre)
    packed = pack(codes, order=order.codes)
    boxes, leaf_size = fit(packed, order), int(library().quantizers_codes_per_leaf())
    mapped = coordinates(codes, order, packed.centre)[order.codes]
    width, dims = leaf_size // 3, mapped.shape[1]  # a leaf is three registers
    found = boxes.leaves.view(-1, dims, 2, width).permute(0, 3, 2, 1).reshape(-1, 2, dims)  # [leaf, 2, dims]
    for leaf, inside in enumerate(mapped.split(leaf_size)):
        low, high = found[leaf].double()
        assert (inside >= low - boxes.slack).all()
        assert (inside <= high + boxes.slack).all()


def test_moved_codes_keep_their_order(codebooks: cached.Codebooks) -> None:
    generator = Generator().manual_seed(0)
    x, codebook = clustered(generator, 300, 9), clustered(generator, 900, 9)
    search(x, codebook, "always")
    order = codebooks.get(codebook).history.order
    for _ in range(5):
        codebook += 0.01 * normal(generator, 900, 9)
        assert_same(x, codebook)
        assert codebooks.get(codebook).history.order is order


def searches(x: Tensor, codebook: Tensor, count: int) -> list[float | None]:
    """The shares of searches that decide for themselves, each with the right result."""
    expected = search(x, codebook, "never")
    shares = []
    for _ in range(count):
        indices, distances, share = search(x, codebook, "auto")
        assert torch.equal(indices, expected[0])
        assert torch.equal(distances, expected[1])
        shares.append(share)
    return shares


def test_decides_by_the_data() -> None:
    """Codes in clusters are left out once this pays; of 40 independent channels none ever is."""
    generator = Generator().manual_seed(0)
    shares = searches(clustered(generator, 4096, 40), clustered(generator, 4096, 40), 12)
    assert shares[0] == 1
    assert shares[-1] is not None
    assert shares[-1] < 0.2
    shares = searches(normal(generator, 4096, 40), normal(generator, 4096, 40), 12)
    assert shares[-1] == 1


def test_small_codebooks_are_searched_whole() -> None:
    generator = Generator().manual_seed(0)
    shares = searches(clustered(generator, 4096, 4), clustered(generator, LEAST_CODES - 1, 4), 30)
    assert set(shares) == {1.0}


def test_an_order_that_has_become_useless_is_replaced(codebooks: cached.Codebooks) -> None:
    """Codes that exchange their places step by step: the new order is as good as the first."""
    generator = Generator().manual_seed(0)
    x, codebook = clustered(generator, 4096, 12), clustered(generator, 4096, 12)
    start, end = codebook.clone(), codebook[torch.randperm(4096, generator=generator)]
    before = searches(x, codebook, 12)[-1]
    history = codebooks.get(codebook).history
    order = history.order
    for step in range(1, 11):
        codebook.copy_(torch.lerp(start, end, step / 10))
        searches(x, codebook, 1)
    after = searches(x, codebook, 10)[-1]
    assert codebooks.get(codebook).history is history
    assert history.order is not order
    assert before is not None
    assert after is not None
    assert after < 2 * before


shapes = st.builds(Shape, st.integers(1, 10_000), st.integers(LEAST_CODES, 70_000), st.integers(1, 256))


@given(shape=shapes, rows=st.lists(st.integers(1, 10_000), min_size=1, max_size=50))
def test_attempts_cost_a_twentieth_at_most(shape: Shape, rows: list[int]) -> None:
    """Of the work of searches that leave nothing out, in the end and at every moment before."""
    history, worked, spent = History(), 0.0, 0.0
    for count in rows * 4:
        shape = shape._replace(rows=count)
        worked += shape.all_codes()
        if history.is_due(shape):
            spent += shape.new_order() + Pairs(count, 0, 0, 0).work(shape.dim)
            everything = shape.rows * 1000
            history.attempted(shape, Pairs(shape.rows, 1000, everything, everything))
        assert spent <= worked / PATIENCE


@given(shape=shapes, shares=st.lists(st.floats(0, 1), min_size=1, max_size=100))
def test_new_orders_cost_no_more_than_they_could_save(shape: Shape, shares: list[float]) -> None:
    """The work of all new orders is at most that of searches beyond the best."""
    history, wasted, spent = History(order=Order(*torch.zeros(4, 1).unbind())), 0.0, 0.0
    for share in shares:
        pairs = Pairs(shape.rows, 10**6, int(share * shape.rows * 10**6), 0)
        history.searched(shape, pairs)
        wasted += share * shape.all_codes()
        if history.order is None:
            spent += shape.new_order()
            history.order = Order(*torch.zeros(4, 1).unbind())
        assert spent <= wasted


def test_small_batches_do_not_end_what_large_ones_gain() -> None:
    history, large, small = History(prunes=True), Shape(4096, 8192, 32), Shape(1, 8192, 32)
    history.searched(large, Pairs(4096, 342, 4096 * 4, 4096))
    history.searched(small, Pairs(1, 342, 342, 342))
    assert history.prunes


def test_unknown_modes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"mode is 'sometimes', expected one of \['auto', 'always', 'never'\]"):
        use_pruning("sometimes").__enter__()
