"""The search by groups against exact arithmetic and the reference, on odd shapes and hard values."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from quantizers.kernels.common.triton.device import Device
from quantizers.kernels.nearest import reference
from quantizers.kernels.nearest.triton.groups import nearest
from quantizers.kernels.nearest.triton.groups.exhaustive import Rows, exhaustive, no_rows
from quantizers.kernels.nearest.triton.groups.nearest import nearest_code, nearest_lookup
from quantizers.kernels.nearest.triton.groups.pack import PackedCodes, PackedRows, empty_codes, empty_rows, pack
from quantizers.kernels.nearest.triton.groups.search import Minima, search
from quantizers.kernels.nearest.triton.groups.settle import settle
from quantizers.kernels.nearest.triton.groups.tiles import CLASSES, Bound, Layout, Tiles, bound, layout, tiles
from quantizers.kernels.nearest.triton.lookup import empty_found
from quantizers.kernels.nearest.triton.pack import frame
from quantizers.kernels.nearest.triton.precision import Mode
from quantizers.kernels.nearest.triton.tiles import round_up
from tests.exact import assert_nearest
from tests.triton.interpreter import device, runs_kernels
from tests.triton.search_inputs import clustered, few, finite, vectors

pytestmark = [
    runs_kernels,
    # The interpreter computes with numpy, which reports what a GPU does in silence: float32 that overflows.
    pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning"),
]


def assert_agrees(x: Tensor, codebook: Tensor) -> None:
    """Indices, codes and distances as the reference's; the distance is rounded once, from float64."""
    indices, codes, distance = nearest_lookup(x, codebook)
    expected, chosen, _ = reference.nearest_lookup(x, codebook)
    assert indices.dtype == torch.int64
    assert torch.equal(indices, expected)
    assert codes.dtype == distance.dtype == chosen.dtype
    assert torch.equal(codes, chosen)
    exact = (x.double() - chosen.double()).square().sum(-1).masked_fill(expected < 0, torch.nan)
    rtol = torch.finfo(distance.dtype).eps * x.shape[-1] ** 0.5
    torch.testing.assert_close(distance.double(), exact, rtol=rtol, atol=0, equal_nan=True)


@settings(max_examples=8)
@given(data=st.data(), dim=st.integers(1, 4), values=st.sampled_from([finite, few, clustered]))
def test_is_exact(data: st.DataObject, dim: int, values: st.SearchStrategy[float]) -> None:
    """Ties, duplicates, denormals, clusters far apart, codes a rounding apart, values near overflow."""
    x, codebook = data.draw(vectors(dim, 6, values)), data.draw(vectors(dim, 20, values))
    indices, distance = nearest_code(x[None], codebook[None])
    assert_nearest(indices[0], x, codebook)
    exact = (x.double() - codebook.double()[indices[0]]).square().sum(-1)
    torch.testing.assert_close(distance[0], exact.float(), rtol=2.0**-23, atol=2.0**-149)


@settings(max_examples=5)
@given(
    seed=st.integers(0, 2**31),
    dim=st.sampled_from([1, 8, 12, 33]),
    offset=st.sampled_from([0.0, 100.0, -1e6]),
    scale=st.sampled_from([1e-3, 1.0, 1e4]),
    dtype=st.sampled_from([torch.bfloat16, torch.float16, torch.float32, torch.float64]),
)
def test_is_exact_at_any_offset(seed: int, dim: int, offset: float, scale: float, dtype: torch.dtype) -> None:
    if dtype == torch.float16:
        offset, scale = max(offset, -1000.0), min(scale, 100.0)
    generator = torch.Generator().manual_seed(seed)
    x = (offset + scale * torch.randn(10, dim, generator=generator)).to(device(), dtype)
    codebook = (offset + scale * torch.randn(30, dim, generator=generator)).to(device(), dtype)
    assert_nearest(nearest_code(x[None], codebook[None])[0][0], x, codebook)


@pytest.mark.parametrize(
    ("heads", "n", "size", "d"),
    [(1, 1, 1, 1), (2, 9, 130, 3), (3, 5, 70, 16), (1, 20, 130, 33), (1, 7, 70, 100), (1, 3, 70, 140)],
)
def test_shapes(heads: int, n: int, size: int, d: int) -> None:
    """Each layout; tiles that are not full, codes split over programs, strided inputs."""
    x, codebook = torch.randn(n, d, heads, device=device()), torch.randn(heads, 2 * size, d, device=device())
    assert_agrees(x.permute(2, 0, 1), codebook[:, ::2])


def test_float64() -> None:
    """Also values that differ by less than float32 tells, and ones that are not finite."""
    x, codebook = torch.randn(2, 20, 5, device=device()).double(), torch.randn(2, 70, 5, device=device()).double()
    codebook[:, 30:60] = codebook[:, :30] * (1 + 2.0**-40)
    x[0] = codebook[0, 40:60]
    x[1, 3, 2] = codebook[1, 1, 0] = torch.nan
    assert_agrees(x, codebook)
    assert_agrees(x, codebook.float())


def test_no_vectors() -> None:
    x, codebook = torch.randn(2, 0, 3, device=device()), torch.randn(2, 5, 3, device=device())
    indices, codes, distance = nearest_lookup(x, codebook)
    assert indices.shape == distance.shape == (2, 0)
    assert codes.shape == (2, 0, 3)


def test_duplicates_go_to_the_lowest_index() -> None:
    """Every row is left to the exhaustive search, with equal codes in many shares."""
    x = torch.randn(1, 20, 6, device=device())
    codebook = torch.randn(1, 7, 6, device=device()).repeat(1, 31, 1)
    assert_agrees(x, codebook)


def test_equally_near_codes_go_to_the_lowest_index() -> None:
    """Permutations of one code around zero: exactly as far, but the sums round differently from order to order."""
    code = torch.randn(40, device=device())
    codebook = torch.stack([code[torch.randperm(40, device=device())] for _ in range(100)])
    indices, _ = nearest_code(torch.zeros(1, 3, 40, device=device()), codebook[None])
    assert (indices == 0).all()
    indices, _ = nearest_code(torch.zeros(1, 3, 40, device=device()), codebook[None, ::8])  # all in one group
    assert (indices == 0).all()


def test_clusters_far_apart() -> None:
    """Seen from the centre of all codes, those of a cluster are equal; float64 tells them apart."""
    x, codebook = torch.randn(1, 20, 8, device=device()), torch.randn(1, 90, 8, device=device())
    x[:, ::2] += 1e6
    codebook[:, ::2] += 1e6
    assert_agrees(x, codebook)


@pytest.mark.parametrize("places", [[0, 8, 16], [0, 2, 4, 8]])
def test_distances_decide_where_scores_cannot(places: list[int]) -> None:
    """Codes near zero, in one group or in three, among codes so far out that float64 scores are too coarse."""
    codebook = torch.tensor([1e30, -1e30], device=device()).repeat(12)[None, :, None]
    for number, place in enumerate(places):
        codebook[0, place] = 1e-3 * (1 + number)
    x = codebook[:, places] * 1.01
    assert nearest_code(x, codebook)[0].tolist() == [places]


@pytest.mark.parametrize("mode", ["high", "medium"])
def test_small_integers_are_nearest_in_every_mode(mode: str) -> None:
    """No rounding anywhere: the mean of codes and their negatives is zero. Ties everywhere."""
    torch.set_float32_matmul_precision(mode)
    x = torch.randint(-4, 5, (1, 30, 2), device=device()).float()
    codebook = torch.randint(-3, 4, (1, 150, 2), device=device()).float()
    codebook = torch.cat([codebook, -codebook], 1)
    indices, distance = nearest_code(x, codebook)
    expected, expected_distance = reference.nearest_code(x, codebook)
    assert torch.equal(distance, expected_distance)
    assert (indices >= expected).all()


@pytest.mark.parametrize(("mode", "value"), [("highest", torch.nan), ("highest", -torch.inf), ("high", torch.inf)])
def test_broken_vectors_and_codes(value: float, mode: str) -> None:
    torch.set_float32_matmul_precision(mode)
    x, codebook = torch.randn(1, 10, 4, device=device()), torch.randn(1, 6, 4, device=device())
    expected, _ = nearest_code(x, codebook[:, 2:])
    codebook[0, 0] = torch.tensor([1e30, value, 0, 0])  # the rest of a broken code moves neither centre nor scale
    codebook[0, 1, 3] = value
    x[0, 4, 2] = value
    expected[0, 4] = -3
    indices, codes, distance = nearest_lookup(x, codebook)
    assert torch.equal(indices, expected + 2)
    assert (codes[0, 4] == 0).all()
    assert distance[0, 4].isnan()
    codebook[:] = value
    assert (nearest_code(x, codebook)[0] == -1).all()


@pytest.mark.parametrize("mode", ["highest", "high", "medium"])
def test_far_vectors_get_a_code_in_every_mode(mode: str) -> None:
    """10³⁸ times as far out as the codes: the direction decides, and nothing overflows."""
    torch.set_float32_matmul_precision(mode)
    x = torch.tensor([[3e38, -3e38], [-3e38, -3e38], [3e38, 3e38]], device=device())[None]
    codebook = torch.tensor([[1.0, -1.0], [-1.0, -1.0], [1.0, 1.0]], device=device())[None]
    assert nearest_code(x, codebook)[0].tolist() == [[0, 1, 2]]


@pytest.mark.parametrize(
    ("mode", "rounding", "scale"),
    [("high", 2.0**-11, 1e-30), ("medium", 2.0**-8, 1e-30), ("medium", 2.0**-8, 1e30)],
)
def test_rounded_modes_are_near(mode: str, rounding: float, scale: float) -> None:
    """½d² of the code chosen exceeds the smallest by at most twice the error of a score.

    Both factors of the product are rounded, to 11 or 8 bits, and D float32 additions follow, at most 2·2⁻²⁴ each:
    2 · rounding · a R and 2D · 2⁻²⁴ (a R + ½R²).
    """
    d = 24
    x, codebook = torch.randn(1, 40, d, device=device()), torch.randn(1, 150, d, device=device())
    x, codebook = (scale * (100 + x)).float(), (scale * (100 + codebook)).float()
    torch.set_float32_matmul_precision(mode)
    indices = nearest_code(x, codebook)[0][0]
    distance = torch.cdist(x[0].double(), codebook[0].double()).square()
    chosen = distance.gather(1, indices[:, None])[:, 0]
    centre = codebook[0].double().mean(0)
    radius = (codebook[0].double() - centre).norm(dim=-1).amax()
    length = (x[0].double() - centre).norm(dim=-1)
    error = 2 * rounding * length * radius + 2 * d * 2.0**-24 * (length * radius + radius.square())
    assert (chosen - distance.amin(1) <= 4 * error).all()
    assert (indices == distance.argmin(1)).float().mean() > 0.8  # and does not merely pick at random


def test_neither_chunks_nor_heads_nor_repetition_change_a_result() -> None:
    x, codebook = torch.randn(2, 12, 3, device=device()), torch.randn(2, 60, 3, device=device())
    codebook[:, 40:] = codebook[:, :20]
    codebook[:, 21:41] = codebook[:, :20]
    whole = nearest_lookup(x, codebook)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearest, "CHUNK", 32 * 7)  # 7 rows of two heads in 16 columns
        chunked = nearest_lookup(x, codebook)
        patch.setattr(nearest, "HEADS", 1)
        apart = nearest_lookup(x, codebook)
    for result in (chunked, apart, nearest_lookup(x, codebook)):
        assert all(torch.equal(a, b) for a, b in zip(result, whole, strict=True))


class Packing:
    """Packed rows and codes of a search of [H, N, D] and [H, K, D], on a device with little or much memory."""

    cut: Layout
    sizes: Tiles
    x: PackedRows
    codes: PackedCodes
    left: Rows

    def __init__(self, x: Tensor, codebook: Tensor, mode: Mode, shared_memory: int = 227 * 1024) -> None:
        device_ = Device(2, shared_memory)
        self.cut = layout(x.shape[2], mode, device_)
        self.sizes = tiles(x.shape[1], codebook.shape[1], self.cut, device_)._replace(splits=2)
        self.where = frame(codebook)
        self.left = no_rows(x)
        size = round_up(codebook.shape[1], self.sizes.block_k)
        self.codes = empty_codes(codebook, size, self.cut)
        self.x = empty_rows(x, round_up(x.shape[1], self.sizes.block_n), self.cut)
        pack(codebook, self.codes, x, self.x, self.where, self.cut, self.left.number, with_codes=True)

    def search(self) -> Minima:
        return search(self.x, self.codes, self.cut, self.sizes)

    def scores(self, head: int = 0) -> Tensor:
        """(8) in float64, of the values as they were packed: [N, K]."""
        left, right = self.x.columns[head].double(), self.codes.columns[head].double()
        if self.cut.products == 3:
            left_low, left = left.chunk(2, 1)
            right_low, right = right.chunk(2, 1)
            products = left_low @ right.T + left @ right_low.T + left @ right.T
        else:
            products = left @ right.nan_to_num(posinf=0.0).T
            products = products.masked_fill((self.codes.half_squares[head] == torch.inf)[None], torch.inf)
        if self.cut.bias_columns:
            return products
        return products + self.x.factor[head].double()[:, None] * self.codes.half_squares[head].double()[None, :]

    def errors(self, limit: Bound) -> Tensor:
        """E of (14) or (15) for each row of the first head."""
        length = (2 * self.x.half_squares[0].double()).sqrt()
        radius = (2 * self.codes.largest[0].amax().double()).sqrt()
        return limit.product * length * radius + limit.square * self.x.factor[0].double() * radius.square()


@pytest.mark.parametrize(("mode", "d"), [("exact", 9), ("exact", 40), ("exact", 130), ("bf16", 3)])
def test_search_keeps_the_two_best_groups_and_the_third_score(mode: Mode, d: int) -> None:
    """Over classes, steps and splits: groups of the smallest scores, in order."""
    x, codebook = torch.randn(1, 20, d, device=device()), torch.randn(1, 700, d, device=device())
    packing = Packing(x, codebook, mode)
    found = packing.search()
    splits = found.scores.shape[1]
    assert splits == 2
    size = packing.sizes.block_k
    scores = packing.scores()[:20]
    minima = scores.view(20, -1, size // (2 * CLASSES), CLASSES, 2).amin((2, 4)).flatten(1)
    share = -(-minima.shape[1] // CLASSES // splits) * CLASSES
    # Products of rounded values are exact in float32; the sum of C of them and the bias takes C roundings.
    rounding = packing.cut.columns * 2.0**-23 * scores.where(scores < torch.inf, 0).abs().amax()
    for split, part in enumerate(minima.split(share, 1)):
        value, order = part.sort(1)
        torch.testing.assert_close(found.scores[:, split, :20].double(), value[:, :3].T, rtol=0, atol=rounding)
        clear = (value[:, 1:3] - value[:, :2] > 2 * rounding).all(1)
        assert clear.float().mean() > 0.5
        assert torch.equal(found.groups[:, split, :20].T[clear].long(), order[clear, :2] + split * share)


@pytest.mark.parametrize(
    ("mode", "d", "scale"),
    [("exact", 3, 1e-30), ("exact", 9, 1e30), ("exact", 20, 1.0), ("exact", 130, 1e-30), ("tf32", 8, 1e30)],
)
def test_packed_scores_are_near_the_exact_ones(mode: Mode, d: int, scale: float) -> None:
    """The errors of (13): of two halves 3·2⁻²² or 3·2⁻¹⁶ a R, of single values 2·2⁻¹¹ a R; and u t ½R²."""
    x = scale * torch.randn(1, 30, d, device=device())
    x[0, 3] *= 1e7
    codebook = scale * torch.randn(1, 40, d, device=device())
    codebook[0, 7] = torch.nan
    packing = Packing(x, codebook, mode)
    where = packing.where
    power = 2.0 ** -where.spread.amax().log2().floor()
    rows = (x[0].double() - where.centre) * power
    factor = packing.x.factor[0, :30].double()
    assert factor[3] < 1
    assert (factor <= 1).all()
    assert (factor.log2() == factor.log2().round()).all()
    rows = rows * factor[:, None]
    assert rows.abs().amax() <= 2
    codes = (codebook[0].double() - where.centre) * power
    exact = factor[:, None] * 0.5 * codes.square().sum(-1) - rows @ codes.T
    radius = codes.nan_to_num().norm(dim=-1).amax()
    halves = {"tf32": 3 * 2.0**-22, "bf16": 3 * 2.0**-16}
    split = halves[packing.cut.values] if mode == "exact" else 2 * 2.0**-11
    error = 1.01 * (split * rows.norm(dim=-1) * radius + 2.0**-24 * factor * radius.square())
    found = packing.scores()[:30]
    assert ((found[:, :40] - exact).abs() <= error[:, None])[:, exact[0].isfinite()].all()
    assert (found[:, 7] == torch.inf).all()
    assert (found[:, 40:] == torch.inf).all()
    dropped = 0x1FFF if packing.cut.values == "tf32" else 0xFFFF
    if packing.x.columns.dtype == torch.float32:
        for columns in (packing.x.columns, packing.codes.columns):
            assert ((columns.view(torch.int32) & dropped) == 0).all()


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


# Halves side by side in 32 and in 64 columns, three products of rows that stay, and of streamed rows.
@pytest.mark.parametrize(("step", "d"), [(16, 9), (8, 20), (16, 40), (8, 130)])
def test_bound_covers_a_matrix_unit_that_truncates(d: int, step: int) -> None:
    """Values of one sign, whose sums grow and lose bits in the same direction at each step."""
    x, codebook = torch.rand(1, 24, d, device=device()), torch.rand(1, 24, d, device=device())
    codebook = torch.cat([codebook, -codebook], 1)
    packing = Packing(x, codebook, "exact")
    left, right = packing.x.columns[0, :24].double(), packing.codes.columns[0, :48].double()
    sums = torch.zeros(24, 48, dtype=torch.float64, device=device())
    if packing.cut.products == 3:
        steps = packing.sizes.block_d
        left_halves, right_halves = (half.chunk(2, 1) for half in (left, right))
        for start in range(0, packing.cut.width, steps):
            (x_low, x_high), (e_low, e_high) = (
                tuple(half[:, start : start + steps] for half in halves) for halves in (left_halves, right_halves)
            )
            for a, b in ((x_low, e_high), (x_high, e_low), (x_high, e_high)):
                sums = truncated_dot(a, b, sums, step)
        bias = packing.x.factor[0, :24, None] * packing.codes.half_squares[0, None, :48]
        sums = (bias.double() + sums).float().double()
    else:
        sums = truncated_dot(left, right, sums, step)
    codes = (codebook[0].double() - packing.where.centre) * 2.0 ** -packing.where.spread.amax().log2().floor()
    rows = (x[0].double() - packing.where.centre) * 2.0 ** -packing.where.spread.amax().log2().floor()
    rows = rows * packing.x.factor[0, :24, None].double()
    exact = packing.x.factor[0, :24, None].double() * 0.5 * codes.square().sum(-1) - rows @ codes.T
    share = ((sums - exact).abs() / packing.errors(bound(packing.cut))[:24, None]).amax()
    assert 0.01 < share <= 1


def settled(x: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """The indices of one head's rows from their best groups alone, and which rows were left."""
    packing = Packing(x[None], codebook[None], "exact")
    found = empty_found(x[None], codebook[None], codes=False)
    arguments = packing.x, packing.codes, x[None], codebook[None], packing.where, bound(packing.cut)
    settle(packing.search(), *arguments, packing.sizes, packing.left, found, 0)
    flags = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    flags[packing.left.listed[0, : packing.left.number[0]]] = True
    return found.indices[0], flags


def test_few_rows_are_left_and_none_of_the_others_is_wrong() -> None:
    """Of normal data no row is left; of rows between three codes of three groups, each is."""
    x, codebook = torch.randn(40, 8, device=device()), torch.randn(160, 8, device=device())
    for spread in (1.0, 2.0**-18, 2.0**-23):
        near = codebook.clone()
        near[50:90] = near[:40] + spread * torch.randn(40, 8, device=device())
        near[101:141] = near[:40] + spread * torch.randn(40, 8, device=device())
        rows = x if spread == 1.0 else near[:40] * 1.1
        indices, left = settled(rows, near)
        expected, _ = reference.nearest_code(rows[None], near[None])
        assert torch.equal(indices[~left], expected[0][~left])
        assert left.float().mean() < 0.05 or spread < 1
        assert left.float().mean() > 0.5 or spread > 2.0**-23


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
