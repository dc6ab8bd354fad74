"""What the exactness of the pruned search rests on: bounds of boxes, and the leaves that tiles of rows keep."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from quantizers.kernels.nearest import reference
from quantizers.kernels.nearest.triton.frame import frame
from quantizers.kernels.nearest.triton.nearest import nearest_code
from quantizers.kernels.nearest.triton.pruned import search as pruned_search
from quantizers.kernels.nearest.triton.pruned.coordinates import leaf_boxes, place
from quantizers.kernels.nearest.triton.pruned.order import PARTS, CodeOrder
from quantizers.kernels.nearest.triton.pruned.remaining import remaining_leaves
from quantizers.kernels.nearest.triton.search import Steps
from tests.effort import examples
from tests.triton.interpreter import device, runs_kernels
from tests.triton.pruned_inputs import LEAF, ORDERS, clustered_data, order_of, pruned
from tests.triton.search_inputs import clustered, few, finite, vectors

pytestmark = [
    runs_kernels,
    # The interpreter computes with numpy, which reports what a GPU does in silence: float32 that overflows.
    pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning"),
]


class _Seen(Exception):
    """Ends a search whose leaves have been seen."""


def kept(x: Tensor, codebook: Tensor, order: CodeOrder) -> tuple[Steps, Tensor]:
    """The leaves that a search keeps, and the order of its rows."""
    seen: list[tuple[Steps, Tensor]] = []

    def spy(*arguments: Any) -> Steps:
        seen.append((remaining_leaves(*arguments), arguments[8]))
        raise _Seen

    with pytest.MonkeyPatch.context() as patch, pruned(x, codebook, order):
        patch.setattr(pruned_search, "remaining_leaves", spy)
        with pytest.raises(_Seen):
            nearest_code(x, codebook)
    return seen[0]


def assert_nearest_remains(x: Tensor, codebook: Tensor, order: CodeOrder) -> None:
    """Each tile of rows keeps the leaves of its rows' nearest codes, by the reference."""
    steps, rows = kept(x, codebook, order)
    nearest, _ = reference.nearest_code(x, codebook)
    leaf = (order.codes[0] == nearest[0, rows[0], None]).nonzero()[:, 1] // LEAF
    for row, wanted in enumerate(leaf.tolist()):
        assert wanted in steps.listed[0, row // 64, : steps.number[0, row // 64]]


@pytest.mark.parametrize("size", [1, 31, 32, 33, 64, 300])
def test_order_is_a_permutation_in_full_leaves(size: int) -> None:
    codebook = torch.randn(2, size, 5, device=device())
    codebook[1, size // 2, 0] = torch.nan
    order = order_of(codebook)
    assert order.codes.shape == (2, -(-size // LEAF) * LEAF)
    assert torch.equal(order.codes[:, :size].sort(1).values, torch.arange(size).to(device()).expand(2, size).int())
    assert (order.codes[:, size:] == size).all()


@pytest.mark.parametrize("d", [3, 8, 20])
def test_codes_fall_into_their_own_parts_of_leaves(d: int) -> None:
    """The way down the tree to the parts of leaves, for vectors that are the codes themselves."""
    codebook = torch.randn(2, 300, d, device=device())
    order, where = order_of(codebook), frame(codebook)
    part = place(codebook, where, order).part
    expected = torch.empty_like(part)
    for head, codes in enumerate(order.codes.long()):
        expected[head, codes[:300]] = (torch.arange(300).to(device()) // (LEAF // PARTS)).int()
    # A code on a plane may fall to the other side, since kernels add in another order.
    assert (part == expected).float().mean() > 0.97


@examples(20)
@given(
    data=st.data(),
    d=st.integers(1, 12),
    values=st.sampled_from([finite, few, clustered]),
    kind=st.sampled_from(ORDERS),
)
def test_boxes_are_no_farther_than_codes(
    data: st.DataObject, d: int, values: st.SearchStrategy[float], kind: str
) -> None:
    """(17) to (20), of stored coordinates: the difference from a code's coordinates, less the rounding of both."""
    x, codebook = data.draw(vectors(d, 6, values)), data.draw(vectors(d, 12, values))
    order, where = order_of(codebook[None], kind), frame(codebook[None])
    spread = where.spread.amax()
    scale = 2.0 ** -spread.clamp(min=2.0**-200).log2().floor()
    rows, codes = ((part.double() - where.centre[0]) * scale for part in (x, codebook))
    coordinates = place(x[None], where, order).coordinates[0].double()
    least, largest = leaf_boxes(codebook[None], where, order)[:, 0].double()[..., 0, None].unbind()
    least, largest = least[:, 0], largest[:, 0]
    difference = torch.maximum(least - coordinates, coordinates - largest).clamp(min=0)
    u = 2.0**-24
    slack = 2 * u * (rows.norm(dim=-1) + codes.norm(dim=-1).amax())
    distance = torch.cdist(rows, codes, compute_mode="donot_use_mm_for_euclid_dist").amin(1)
    bounded = coordinates.isfinite().all(1)  # others keep all leaves
    assert (difference.square().sum(1) <= ((distance + slack).square() * (1 + 64 * u)))[bounded].all()
    # And not only because the boxes are too large: each side is the coordinate of some code.
    own = place(codebook[None], where, order).coordinates[0].double()
    torch.testing.assert_close(torch.stack([least, largest]), torch.stack(own.aminmax(dim=0)), rtol=0, atol=0)


@examples(12)
@given(
    data=st.data(),
    d=st.integers(1, 10),
    values=st.sampled_from([finite, few, clustered]),
    kind=st.sampled_from(ORDERS),
    seed=st.integers(0, 2**31),
)
def test_the_leaf_of_the_nearest_code_remains(
    data: st.DataObject, d: int, values: st.SearchStrategy[float], kind: str, seed: int
) -> None:
    torch.manual_seed(seed)
    different = data.draw(vectors(d, 12, values))
    x, codebook = different[None], different[torch.randint(len(different), (100,)).to(device())][None]
    order = order_of(codebook, kind)
    assert_nearest_remains(x, codebook, order)


@pytest.mark.parametrize("shift", [1e-2, 1e-4, 1e-6])
def test_leaves_that_are_hardly_nearer_remain(shift: float) -> None:
    """Leaves of one code and its copies, whose boxes are points, and rows almost halfway between two of them: by
    less than the errors of scores for the smallest shift. A tile scores at most four of its eight leaves first.
    """
    different = torch.randn(24, 3, device=device())
    neighbour = torch.cdist(different, different).fill_diagonal_(torch.inf).argmin(1)
    step = different[neighbour] - different
    x = torch.cat([different + (0.5 + shift) * step, different + (0.5 - shift) * step]).repeat(4, 1)
    codebook = different.repeat(LEAF, 1)
    assert_nearest_remains(x[None], codebook[None], order_of(codebook[None]))


@pytest.mark.parametrize("d", [4, 24])
def test_leaves_of_other_clusters_are_skipped(d: int) -> None:
    """Sixteen clusters of a leaf each on a grid, and tiles of rows that lie in two of them."""
    centres = torch.zeros(16, 1, d)
    centres[:, 0, 0], centres[:, 0, 1] = torch.arange(16) // 4 * 30.0, torch.arange(16) % 4 * 10.0
    x, codebook = ((centres + 0.1 * torch.randn(16, LEAF, d)).view(1, -1, d).to(device()) for _ in range(2))
    steps, _ = kept(x, codebook, order_of(codebook))
    assert steps.number.tolist() == [[2] * 8]
    assert steps.listed[0, :, :2].flatten().tolist() == list(range(16))


def test_fewer_leaves_remain_in_the_order_of_these_codes() -> None:
    x, codebook = torch.randn(1, 1024, 2, device=device()), torch.randn(1, 1024, 2, device=device())
    shares = [kept(x, codebook, order_of(codebook, kind))[0].number.float().mean() for kind in ORDERS]
    assert shares[0] < 0.5 * shares[2]
    assert shares[2] > 0.9 * 1024 / LEAF  # each leaf has codes everywhere


def test_rows_that_are_not_finite_need_no_leaf() -> None:
    x, codebook = clustered_data(70, 100, 3)
    x[:, :66] = torch.nan
    steps, rows = kept(x, codebook, order_of(codebook))
    assert set(rows[0, :4].tolist()) == {66, 67, 68, 69}
    assert steps.number[0, 0] > 0
    assert steps.number[0, 1] == 0
