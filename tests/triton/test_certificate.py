"""What the exactness of the Triton search rests on: packed values, bounds, best groups, and who decides a row."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from quantizers.kernels.common.triton.device import Device
from quantizers.kernels.nearest import reference
from quantizers.kernels.nearest.triton import frame as frame_module
from quantizers.kernels.nearest.triton.exhaustive import Rows, exhaustive, no_rows
from quantizers.kernels.nearest.triton.frame import Frame, frame
from quantizers.kernels.nearest.triton.lookup import empty_found
from quantizers.kernels.nearest.triton.pack import PackedCodes, PackedRows, pack
from quantizers.kernels.nearest.triton.search import Minima, search
from quantizers.kernels.nearest.triton.settle import settle
from quantizers.kernels.nearest.triton.tiles import CLASSES, Bound, Layout, Tiles, bound, layout, tiles
from tests.effort import examples
from tests.triton.interpreter import device, runs_kernels
from tests.triton.search_inputs import clustered, few, finite, vectors

pytestmark = [
    runs_kernels,
    # The interpreter computes with numpy, which reports what a GPU does in silence: float32 that overflows.
    pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning"),
]

LAYOUTS = [3, 29, 40, 270]  # channels with ½‖e‖² in columns (two widths), without them, and of streamed rows


class Packing:
    """Packed rows and codes of one head, [N, D] and [K, D]."""

    cut: Layout
    sizes: Tiles
    where: Frame
    x: PackedRows
    codes: PackedCodes
    left: Rows

    def __init__(self, x: Tensor, codebook: Tensor) -> None:
        self.n, self.size = len(x), len(codebook)
        vectors, codes, hopper = x[None], codebook[None], Device(2, 227 * 1024)
        self.cut = layout(x.shape[1], hopper)
        self.sizes = tiles(self.n, self.size, self.cut, hopper)._replace(splits=2)
        self.where, self.left = frame(codes), no_rows(vectors)
        self.x, self.codes = pack(codes, vectors, self.where, self.cut, self.sizes, self.left.number)
        self.vectors, self.codebook = vectors, codes

    def search(self) -> Minima:
        return search(self.x, self.codes, self.cut, self.sizes)

    @property
    def scale(self) -> Tensor:
        spread = self.where.spread.amax()
        return 2.0 ** -spread.log2().floor() if spread > 0 else torch.ones_like(spread)

    @property
    def factor(self) -> Tensor:
        return self.x.factor[0, : self.n].double()

    def exact(self) -> tuple[Tensor, Tensor, Tensor]:
        """x' and e' of (8), and the scores of all pairs, in float64; t below its limit, too."""
        centre = self.where.centre[0]
        rows = (self.vectors[0].double() - centre) * self.scale
        factor = (2.0 ** -rows.abs().amax(-1).log2().floor()).clamp(max=2.0**10)
        rows = rows * factor[:, None]
        codes = (self.codebook[0].double() - centre) * self.scale
        return rows, codes, factor[:, None] * 0.5 * codes.square().sum(-1) - rows @ codes.T

    def scores(self) -> Tensor:
        """Scores of the values as they were packed, in float64: [N, padded K], +inf for padding."""
        left, right = self.x.columns[0, : self.n].double(), self.codes.columns[0].double()
        products = left @ right.nan_to_num(posinf=0.0).T
        if not self.cut.bias_columns:
            products += self.factor[:, None] * self.codes.half_squares[0].double()[None, :]
        return products.masked_fill((self.codes.half_squares[0] == torch.inf)[None], torch.inf)

    def errors(self, limit: Bound) -> Tensor:
        """E of (10) for each row, with the given coefficients of the sums: [N]."""
        longest, roughest = self.where.lengths.view(torch.float32)[:, 0].double().sqrt()
        residual = self.x.residual[0, : self.n].double()
        rounded = self.x.length[0, : self.n].double() + residual
        return (
            1.01 * (residual * longest + rounded * roughest)
            + limit.product * rounded * (longest + roughest)
            + limit.square * self.factor * longest.square()
        )


@examples(12)
@given(data=st.data(), dim=st.integers(1, 4), values=st.sampled_from([finite, few, clustered]))
def test_bound_covers_what_packing_changes(
    data: st.DataObject, dim: int, values: st.SearchStrategy[float]
) -> None:
    """The residuals of (9), and one rounding of ½‖e‖²; vectors of any magnitude beside codes of any other."""
    packing = Packing(data.draw(vectors(dim, 6, values)), data.draw(vectors(dim, 20, values)))
    rows, codes, exact = packing.exact()
    error = packing.errors(Bound(0.0, 2.0**-24))
    # A float64 product of D terms is rounded D times, and the centre once.
    slack = (dim + 4) * 2.0**-52 * (rows.norm(dim=-1) * codes.norm(dim=-1).amax() + codes.square().sum(-1).amax())
    found = packing.scores()[:, : packing.size]
    assert ((found - exact).abs() <= (error + slack)[:, None]).all()


@pytest.mark.parametrize("d", LAYOUTS)
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_packed_values(d: int, scale: float) -> None:
    """Within float16's range; residuals and lengths are those of the values."""
    x, codebook = scale * torch.randn(12, d, device=device()), scale * torch.randn(20, d, device=device())
    x[3] *= 1e7
    x[4] *= 1e-4
    x[5, 0] = codebook[7, -1] = torch.nan
    packing = Packing(x, codebook)
    factor = packing.factor
    assert (factor.log2() == factor.log2().round()).all()
    assert factor[3] < 1 < factor[4]
    rows, codes, _ = packing.exact()
    for packed, values, sign in ((packing.x.columns, rows, -1), (packing.codes.columns, codes, 1)):
        kept = values.isfinite().all(-1)
        columns = sign * packed[0, : len(values), :d].double()
        assert (columns[kept].abs() <= 2).all()
        assert ((columns - values)[kept].abs() <= 2.0**-11 * values[kept].abs() + 2.0**-25).all()
        assert (columns[~kept] == 0).all()
    kept = rows.isfinite().all(-1)
    lost = (packing.x.columns[0, :12, :d].double() + rows).norm(dim=-1)
    torch.testing.assert_close(packing.x.residual[0, :12].double()[kept], lost[kept], rtol=2.0**-22, atol=0)
    torch.testing.assert_close(
        packing.x.length[0, :12].double()[kept], rows.norm(dim=-1)[kept], rtol=2.0**-22, atol=0
    )
    assert (packing.x.length[0, 12:] == torch.inf).all()
    assert packing.x.length[0, 5] == torch.inf
    kept = codes.isfinite().all(-1)
    lost = (packing.codes.columns[0, :20, :d].double() - codes)[kept].square().sum(-1)
    squares = codes[kept].square().sum(-1)
    lengths = packing.where.lengths.view(torch.float32)[:, 0].double()
    torch.testing.assert_close(lengths, torch.stack([squares.amax(), lost.amax()]), rtol=2.0**-22, atol=0)
    torch.testing.assert_close(
        packing.codes.half_squares[0, :20].double()[kept], squares / 2, rtol=2.0**-22, atol=0
    )
    assert (packing.codes.half_squares[0, 20:] == torch.inf).all()
    assert packing.codes.half_squares[0, 7] == torch.inf


def test_a_factor_at_its_limit_counts_as_a_residual() -> None:
    """A row 10³⁸ times as far out as the codes keeps t = 2⁻²⁴, which float16 can hold."""
    x = torch.tensor([[3e38, -3e38], [1.0, 2.0]], device=device())
    packing = Packing(x, torch.tensor([[1.0, -1.0], [-1.0, 1.0], [0.5, 0.0]], device=device()))
    assert packing.factor[0] == 2.0**-24
    assert packing.x.columns[0, 0].abs().amax() <= 2
    assert packing.x.residual[0, 0] >= 2.0**-24 * 2**0.5 * 0.99


@pytest.mark.parametrize("d", LAYOUTS)
def test_search_keeps_the_three_best_groups_and_the_fourth_score(d: int) -> None:
    """Over classes, steps and splits: groups of the smallest scores, in order."""
    packing = Packing(torch.randn(20, d, device=device()), torch.randn(700, d, device=device()))
    found = packing.search()
    splits = found.scores.shape[1]
    assert splits == 2
    size, scores = packing.sizes.block_k, packing.scores()
    minima = scores.view(20, -1, size // (2 * CLASSES), CLASSES, 2).amin((2, 4)).flatten(1)
    share = -(-minima.shape[1] // CLASSES // splits) * CLASSES
    # Products of float16 values are exact in float32; the sum of C of them and the bias takes C roundings.
    rounding = packing.cut.width * 2.0**-23 * scores.where(scores < torch.inf, 0).abs().amax()
    for split, part in enumerate(minima.split(share, 1)):
        value, order = part.sort(1)
        torch.testing.assert_close(found.scores[:, split, :20].double(), value[:, :4].T, rtol=0, atol=rounding)
        clear = (value[:, 1:4] - value[:, :3] > 2 * rounding).all(1)
        assert clear.float().mean() > 0.5
        assert torch.equal(found.groups[:, split, :20].T[clear].long(), order[clear, :3] + split * share)


def truncated_dot(left: Tensor, right: Tensor, sums: Tensor, step: int) -> Tensor:
    """sums + left · rightᵀ as the model of a matrix unit: in each step, products and sum are cut off below 23 bits
    of the largest, and so is the result."""
    for start in range(0, left.shape[1], step):
        terms = left[:, None, start : start + step] * right[None, :, start : start + step]
        terms = torch.cat([sums[..., None], terms], -1)
        for _ in range(2):  # the terms, and then their sum
            bit = 2.0 ** (terms.abs().amax(-1, keepdim=True).clamp(min=2.0**-100).log2().floor() - 23)
            terms = (terms / bit).trunc() * bit
            terms = terms.sum(-1, keepdim=True)
        sums = terms[..., 0]
    return sums


@pytest.mark.parametrize("step", [8, 16])
@pytest.mark.parametrize("d", LAYOUTS)
def test_bound_covers_a_matrix_unit_that_truncates(d: int, step: int) -> None:
    """Values of one sign, whose sums grow and lose bits in the same direction at each step. ½‖e‖² may be added
    before the products, as a compiler prefers, or after them.
    """
    x, codebook = torch.rand(24, d, device=device()), torch.rand(24, d, device=device())
    packing = Packing(x, torch.cat([codebook, -codebook]))
    left, right = packing.x.columns[0, :24].double(), packing.codes.columns[0, :48].double()
    first = last = torch.zeros(24, 48, dtype=torch.float64, device=device())
    if not packing.cut.bias_columns:
        bias = (packing.x.factor[0, :24, None] * packing.codes.half_squares[0, None, :48]).double()
        first = truncated_dot(left, right, bias, step)
        last = (truncated_dot(left, right, last, step) + bias).float().double()
    else:
        first = last = truncated_dot(left, right, first, step)
    _, _, exact = packing.exact()
    sums = packing.scores()[:, :48]  # without their errors
    for found in (first, last):
        assert ((found - exact).abs() <= packing.errors(bound(packing.cut))[:, None]).all()
        share = (found - sums).abs() / (packing.errors(bound(packing.cut)) - packing.errors(Bound(0, 0)))[:, None]
        assert 0.005 < share.amax() <= 1


def settled(x: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """The indices of rows from their best groups alone, and which rows were left."""
    packing = Packing(x, codebook)
    found = empty_found(packing.vectors, packing.codebook, codes=False)
    settle(
        packing.search(), packing.x, packing.codes, packing.vectors, packing.codebook, packing.where,
        bound(packing.cut), packing.cut, packing.sizes, packing.left, found, 0,
    )  # fmt: skip
    flags = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    flags[packing.left.listed[0, : packing.left.number[0]]] = True
    return found.indices[0], flags


@pytest.mark.parametrize("d", [8, 40])
@pytest.mark.parametrize("copies", [1, 2, 3, 4])
@pytest.mark.parametrize("spread", [0.0, 2.0**-18])
def test_rows_between_codes_of_several_groups(d: int, copies: int, spread: float) -> None:
    """Of codes that float16 cannot tell apart, three groups are decided, and four are left to all codes."""
    codebook = torch.randn(16, d, device=device())
    x = codebook * 1.1
    moved = codebook + spread * torch.randn(copies, 16, d, device=device())
    # Each copy in another class: a class is (k mod 8) // 2.
    rolled = [copy.roll(2 * number, 0) for number, copy in enumerate(moved)]
    codes = torch.cat([*rolled, 9 * torch.randn(128, d, device=device())])
    indices, left = settled(x, codes)
    assert left.all() if copies > 3 else not left.any()
    expected, _ = reference.nearest_code(x[None], codes[None])
    assert torch.equal(indices[~left], expected[0][~left])


@pytest.mark.parametrize("d", [4, 64])
def test_few_rows_of_normal_data_are_left(d: int) -> None:
    x, codebook = torch.randn(200, d, device=device()), torch.randn(600, d, device=device())
    indices, left = settled(x, codebook)
    assert left.float().mean() < 0.02
    expected, _ = reference.nearest_code(x[None], codebook[None])
    assert torch.equal(indices[~left], expected[0][~left])


def test_exhaustive_search_of_some_rows() -> None:
    """Only listed rows change. Few rows share the codes among programs; with many, a program takes all codes."""
    x, codebook = torch.randn(2, 150, 3, device=device()), torch.randn(2, 200, 3, device=device())
    codebook[:, 150:180] = codebook[:, :30]
    expected, _ = reference.nearest_code(x, codebook)
    for kept in (0.95, 0.2):
        found = empty_found(x, codebook, codes=False)
        found.indices.fill_(-7)
        flags = torch.rand(2, 150, device=device()) > kept
        listed = flags.int().argsort(1, descending=True)
        exhaustive(x, codebook, frame(codebook), Rows(listed, flags.sum(1).int()), found)
        assert torch.equal(found.indices, expected.masked_fill(~flags, -7))


@pytest.mark.parametrize(("size", "d"), [(300, 3), (40, 260)])
def test_location_of_the_codes(size: int, d: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mean and spread of two heads, over slices of several tiles, without the broken codes.

    A mean of K values has an error of at most K + 1 roundings of the largest.
    """
    monkeypatch.setattr(frame_module, "SLICES", 3)
    codebook = torch.randn(2, size, d, device=device())
    codebook[1, 7, 0], codebook[1, 7, 1], codebook[0, -1, -1] = torch.nan, 1e9, torch.inf
    where = frame(codebook)
    for head, values in enumerate(codebook.double()):
        kept = values[values.isfinite().all(-1)]
        centre = kept.mean(0)
        error = (size + 1) * 2.0**-53 * kept.abs().amax()
        assert (where.centre[head] - centre).abs().amax() <= error
        assert (where.spread[head] - (kept - centre).abs().amax(0)).abs().amax() <= 2 * error
    assert (where.lengths == 0).all()
