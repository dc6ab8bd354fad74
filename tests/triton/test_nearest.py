"""The Triton search against exact arithmetic and the reference, on odd shapes and hard values."""

import pytest
import torch
import triton
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from quantizers.kernels.nearest import reference
from quantizers.kernels.nearest.triton import nearest
from quantizers.kernels.nearest.triton import pack as pack_module
from quantizers.kernels.nearest.triton.decide import Undecided, decide
from quantizers.kernels.nearest.triton.lookup import empty_found
from quantizers.kernels.nearest.triton.nearest import nearest_code, nearest_lookup
from quantizers.kernels.nearest.triton.pack import Frame, Packed, frame, pack
from quantizers.kernels.nearest.triton.precision import Mode
from quantizers.kernels.nearest.triton.rescan import rescan
from quantizers.kernels.nearest.triton.search import Partial, search
from quantizers.kernels.nearest.triton.tiles import Tiles, tiles
from tests.exact import assert_nearest
from tests.triton.interpreter import device, runs_kernels
from tests.triton.search_inputs import clustered, few, finite, vectors

pytestmark = [
    runs_kernels,
    # The interpreter computes with numpy, which reports what a GPU does in silence: float32 that overflows.
    pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning"),
]

float_dtypes = [torch.bfloat16, torch.float16, torch.float32, torch.float64]


def assert_agrees(x: Tensor, codebook: Tensor) -> None:
    """Indices, codes and distances as the reference's; the distance is rounded once, from float64."""
    indices, codes, distance = nearest_lookup(x, codebook)
    expected, _ = reference.nearest_code(x, codebook)
    assert indices.dtype == torch.int64
    assert torch.equal(indices, expected)
    chosen = torch.stack([c[i] for c, i in zip(codebook, expected, strict=True)])
    dtype = torch.float64 if torch.float64 in (x.dtype, codebook.dtype) else torch.float32
    assert codes.dtype == distance.dtype == dtype
    assert torch.equal(codes, chosen.to(dtype))
    exact = (x.double() - chosen.double()).square().sum(-1)
    torch.testing.assert_close(distance.double(), exact, rtol=torch.finfo(dtype).eps * x.shape[-1] ** 0.5, atol=0)


@settings(max_examples=30)
@given(data=st.data(), dim=st.integers(1, 4), values=st.sampled_from([finite, few, clustered]))
def test_is_exact(data: st.DataObject, dim: int, values: st.SearchStrategy[float]) -> None:
    """Ties, duplicates, denormals, clusters far apart, codes a rounding apart, values near overflow."""
    x, codebook = data.draw(vectors(dim, 6, values)), data.draw(vectors(dim, 12, values))
    indices, distance = nearest_code(x[None], codebook[None])
    assert_nearest(indices[0], x, codebook)
    exact = (x.double() - codebook.double()[indices[0]]).square().sum(-1)
    torch.testing.assert_close(distance[0], exact.float(), rtol=2.0**-23, atol=2.0**-149)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**31),
    dim=st.sampled_from([1, 3, 8, 33]),
    offset=st.sampled_from([0.0, 100.0, 1000.0, -1e6]),
    scale=st.sampled_from([1e-3, 0.1, 1.0, 1e4]),
    dtype=st.sampled_from(float_dtypes),
)
def test_is_exact_at_any_offset(seed: int, dim: int, offset: float, scale: float, dtype: torch.dtype) -> None:
    if dtype == torch.float16:
        offset, scale = max(min(offset, 1000.0), -1000.0), min(scale, 100.0)
    generator = torch.Generator().manual_seed(seed)
    x = (offset + scale * torch.randn(20, dim, generator=generator)).to(device(), dtype)
    codebook = (offset + scale * torch.randn(30, dim, generator=generator)).to(device(), dtype)
    assert_nearest(nearest_code(x[None], codebook[None])[0][0], x, codebook)


@pytest.mark.parametrize(
    ("heads", "n", "size", "d"),
    [(1, 1, 1, 1), (2, 129, 65, 3), (3, 5, 200, 16), (1, 40, 130, 33), (2, 7, 70, 100), (1, 3, 5, 1024)],
)
def test_shapes(heads: int, n: int, size: int, d: int) -> None:
    """Tiles that are not full, codes split over programs, rows that stay in a tile and rows that are streamed."""
    assert_agrees(torch.randn(heads, n, d, device=device()), torch.randn(heads, size, d, device=device()))


@pytest.mark.parametrize("dtype", float_dtypes)
@pytest.mark.parametrize("code_dtype", [torch.float32, torch.float64])
def test_dtypes(dtype: torch.dtype, code_dtype: torch.dtype) -> None:
    x = torch.randn(2, 20, 5, device=device()).to(dtype)
    assert_agrees(x, torch.randn(2, 70, 5, device=device()).to(code_dtype))


def test_strided_input() -> None:
    x = torch.randn(6, 2, 50, device=device()).permute(1, 2, 0)
    codebook = torch.randn(2, 60, 12, device=device())[:, ::2, ::2]
    assert not x.is_contiguous()
    assert not codebook.is_contiguous()
    assert_agrees(x, codebook)


def test_no_vectors() -> None:
    indices, codes, distance = nearest_lookup(
        torch.randn(2, 0, 3, device=device()), torch.randn(2, 5, 3, device=device())
    )
    assert indices.shape == distance.shape == (2, 0)
    assert codes.shape == (2, 0, 3)


def test_duplicates_go_to_the_lowest_index() -> None:
    """Every row is uncertain: more groups of rows than programs, equal codes in several splits."""
    x = torch.randn(1, 200, 19, device=device())
    codebook = torch.randn(1, 7, 19, device=device()).repeat(1, 31, 1)
    assert_agrees(x, codebook)
    assert (nearest_code(x, codebook)[0] < 7).all()


def test_equally_near_codes_go_to_the_lowest_index() -> None:
    """Permutations of one code around zero: exactly as far, but the sums round differently from order to order."""
    code = torch.randn(40, device=device())
    codebook = torch.stack([code[torch.randperm(40, device=device())] for _ in range(100)])
    rounded = codebook.double().square().cumsum(-1)[:, -1]
    assert rounded.argmin() > 0
    indices, _ = nearest_code(torch.zeros(1, 3, 40, device=device()), codebook[None])
    assert (indices == 0).all()


@pytest.mark.parametrize("mode", ["highest", "high", "medium"])
@pytest.mark.parametrize(("n", "size", "d"), [(140, 350, 2), (5, 20, 200), (5, 20, 300)])
def test_small_integers_are_exact_in_every_mode(mode: str, n: int, size: int, d: int) -> None:
    """No rounding anywhere: the mean of codes and their negatives is zero. Ties everywhere with two channels."""
    torch.set_float32_matmul_precision(mode)
    x = torch.randint(-4, 5, (1, n, d), device=device()).float()
    codebook = torch.randint(-3, 4, (1, size, d), device=device()).float()
    assert_agrees(x, torch.cat([codebook, -codebook], 1))


@pytest.mark.parametrize("mode", ["highest", "high", "medium"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_broken_vectors_and_codes(value: float, mode: str) -> None:
    torch.set_float32_matmul_precision(mode)
    x, codebook = torch.randn(1, 10, 4, device=device()), torch.randn(1, 6, 4, device=device())
    expected, _ = nearest_code(x, codebook[:, 2:])
    codebook[0, 0] = torch.tensor([1e30, value, 0, 0])  # the rest of a broken code moves neither centre nor scale
    codebook[0, 1, 3] = value
    assert torch.equal(nearest_code(x, codebook)[0], expected + 2)

    x[0, 4, 2] = value
    indices, codes, distance = nearest_lookup(x, codebook)
    assert indices[0, 4] == -1
    assert (codes[0, 4] == 0).all()
    assert distance[0, 4].isnan()
    assert torch.equal(indices[0, 5:], expected[0, 5:] + 2)

    codebook[:] = value
    assert (nearest_code(x, codebook)[0] == -1).all()


def test_broken_values_in_float64() -> None:
    x, codebook = torch.randn(2, 1, 10, 4, device=device(), dtype=torch.float64).unbind()
    x[0, 4, 2] = codebook[0, 0, 1] = torch.nan
    indices, distance = nearest_code(x, codebook)
    expected, expected_distance = reference.nearest_code(x, codebook)
    assert torch.equal(indices, expected)
    torch.testing.assert_close(distance, expected_distance, equal_nan=True)
    codebook[:] = torch.inf
    assert (nearest_code(x, codebook)[0] == -1).all()


@pytest.mark.parametrize(("mode", "rounding"), [("high", 2.0**-11), ("medium", 2.0**-8)])
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_rounded_modes_are_near(mode: str, rounding: float, scale: float) -> None:
    """½d² of the code chosen exceeds the smallest by at most twice the error of a score.

    Both factors of the product are rounded, to 11 or 8 bits, and D float32 additions follow, at most 2·2⁻²⁴ each:
    2 · rounding · a R and 2D · 2⁻²⁴ (a R + ½R²).
    """
    d = 24
    x, codebook = torch.randn(1, 150, d, device=device()), torch.randn(1, 300, d, device=device())
    x, codebook = (scale * (100 + x)).float(), (scale * (100 + codebook)).float()
    torch.set_float32_matmul_precision(mode)
    indices = nearest_code(x, codebook)[0][0]
    distance = torch.cdist(x[0].double(), codebook[0].double()).square()
    chosen = distance.gather(1, indices[:, None])[:, 0]
    centred = codebook[0].double() - codebook[0].double().mean(0)
    radius = centred.norm(dim=-1).amax()
    length = (x[0].double() - codebook[0].double().mean(0)).norm(dim=-1)
    error = 2 * rounding * length * radius + 2 * d * 2.0**-24 * (length * radius + radius.square())
    assert (chosen - distance.amin(1) <= 4 * error).all()
    assert (indices == distance.argmin(1)).float().mean() > 0.8  # and does not merely pick at random


def test_far_vectors_get_a_code_in_every_mode() -> None:
    """10³⁸ times as far out as the codes: the direction decides, and nothing overflows."""
    x = torch.tensor([[3e38, -3e38], [-3e38, -3e38], [3e38, 3e38]], device=device())[None]
    codebook = torch.tensor([[1.0, -1.0], [-1.0, -1.0], [1.0, 1.0]], device=device())[None]
    for mode in ("highest", "high", "medium"):
        torch.set_float32_matmul_precision(mode)
        assert nearest_code(x, codebook)[0].tolist() == [[0, 1, 2]]


def test_neither_chunks_nor_repetition_change_a_result() -> None:
    x, codebook = torch.randn(2, 70, 3, device=device()), torch.randn(2, 90, 3, device=device())
    whole = nearest_lookup(x, codebook)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearest, "CHUNK", 32 * 31)  # 31 rows of two heads, padded to 16 channels
        chunked = nearest_lookup(x, codebook)
    for result in (chunked, nearest_lookup(x, codebook)):
        assert all(torch.equal(a, b) for a, b in zip(result, whole, strict=True))


def _pack(x: Tensor, codebook: Tensor, mode: Mode) -> tuple[Tiles, Frame, Packed, Packed]:
    cut = tiles(x.shape[1], codebook.shape[1], x.shape[2], mode, 2, 163 * 1024)
    where = frame(codebook)
    return cut, where, *pack(x, codebook, where, cut, mode, range(x.shape[1]))


def _certain(x: Tensor, codebook: Tensor) -> tuple[Partial, Tensor, Tensor]:
    """Return the partial scores, the rows that they decide [H, N] bool, and the indices of these."""
    cut, where, rows, codes = _pack(x, codebook, "exact")
    partial = search(rows, codes, cut, "exact")
    found = empty_found(x, codebook, codes=False)
    undecided = Undecided(torch.empty(x[..., 0].numel(), dtype=torch.int64, device=x.device), where.undecided)
    everything = range(x.shape[1])
    decide(partial, x, codebook, where, rows, everything, found, undecided, resident=x.shape[2] <= cut.block_d)
    certain = torch.ones_like(found.indices, dtype=torch.bool)
    certain.view(-1)[undecided.rows[: int(undecided.number)]] = False
    return partial, certain, found.indices


def test_certificate_is_neither_empty_nor_wrong() -> None:
    """Of normal data nearly every row is certain; a row whose two nearest codes are 2⁻²² apart is not."""
    x, codebook = torch.randn(1, 500, 8, device=device()), torch.randn(1, 300, 8, device=device())
    partial, certain, indices = _certain(x, codebook)
    assert partial.best.shape[0] > 1  # split
    assert certain.float().mean() > 0.95
    assert torch.equal(indices[certain], reference.nearest_code(x, codebook)[0][certain])
    codebook[0, 200] = codebook[0, 100] * (1 + 2.0**-22)
    _, certain, _ = _certain(codebook[:, 100:101].clone() * 1.5, codebook)
    assert certain.tolist() == [[False]]


@pytest.mark.parametrize("d", [3, 70])
def test_rows_left_to_the_rescan(d: int) -> None:
    """In several heads and programs: every second row has two equal nearest codes."""
    x, codebook = torch.randn(2, 150, d, device=device()), torch.randn(2, 40, d, device=device())
    codebook[:, 0] *= 10  # the nearest code of whatever lies in its direction
    codebook[:, 30] = codebook[:, 0]
    x[:, ::2] = codebook[:, :1] * torch.linspace(1, 2, 75, device=device())[:, None]
    _, certain, _ = _certain(x, codebook)
    assert not certain[:, ::2].any()
    assert certain[:, 1::2].any()


def test_second_score_is_the_second_smallest() -> None:
    """Over columns, steps and splits: the smallest may come first, last, or share its column with the second."""
    x, codebook = torch.randn(1, 200, 2, device=device()), torch.randn(1, 400, 2, device=device())
    cut, where, rows, codes = _pack(x, codebook, "exact")
    partial = search(rows, codes, cut, "exact")
    scale = 2.0 ** -where.spread.amax().log2().floor()
    centred = (codebook[0].double() - where.centre) * scale
    for split in range(partial.best.shape[0]):
        share = triton.cdiv(triton.cdiv(400, 32), partial.best.shape[0]) * 32
        part = centred[split * share : (split + 1) * share]
        far = (x[0].double() - where.centre) * scale
        factor = (2.0 ** -far.abs().amax(-1).log2().floor()).clamp(max=1.0)
        scores = 0.5 * factor[:, None] * part.square().sum(-1) - factor[:, None] * far @ part.T
        smallest, order = scores.sort(-1)
        # Scores are below 8 here; ten roundings at most are made of each.
        bound = 8 * 10 * 2.0**-24
        torch.testing.assert_close(partial.best[split, 0, :200].double(), smallest[:, 0], rtol=0, atol=bound)
        torch.testing.assert_close(partial.second[split, 0, :200].double(), smallest[:, 1], rtol=0, atol=bound)
        clear = smallest[:, 1] - smallest[:, 0] > 2 * bound
        found = partial.lowest[split, 0, :200].long() - split * share
        assert torch.equal(found[clear], order[clear, 0])


@pytest.mark.parametrize("n", [1, 140])
def test_lowest_index_within_the_bound_of_the_smallest_distance(n: int) -> None:
    """(12), at distances of 12, 6 and 0 units beyond 1, a bound of 9, in three steps of the codes.

    The first code is within the bound of the second, and the second of the third, in shares of their own (one row)
    or in one share (140 rows), where the index of the second is lost.
    """
    x, codebook = torch.zeros(1, n, 1, dtype=torch.float64), torch.full((1, 192, 1), 2.0, dtype=torch.float64)
    for place, units in ((5, 6), (70, 3), (130, 0)):
        codebook[0, place] = 1 + units * 2.0**-52
    x, codebook = x.to(device()), codebook.to(device())
    assert (nearest_code(x, codebook)[0] == 70).all()
    assert_agrees(x, codebook)


def test_rescan_of_some_rows() -> None:
    """Only rows that are undecided change; the rest keep whatever they hold."""
    x, codebook = torch.randn(2, 50, 3, device=device()), torch.randn(2, 150, 3, device=device())
    expected, _ = reference.nearest_code(x, codebook)
    kept = torch.rand(2, 50, device=device()) < 0.5
    listed = kept.view(-1).logical_not().nonzero().view(-1)
    listed = listed[torch.randperm(len(listed), device=device())]
    found = empty_found(x, codebook, codes=True)
    for result in found:
        result[kept] = 7
    rows, count = (
        torch.zeros(100, dtype=torch.int64, device=device()),
        torch.tensor([len(listed)], device=device()),
    )
    rows[: len(listed)] = listed
    rescan(x, codebook, Undecided(rows, count), found)
    assert torch.equal(found.indices, expected.masked_fill(kept, 7))
    chosen = torch.stack([c[i] for c, i in zip(codebook, expected, strict=True)])
    assert torch.equal(found.codes, chosen.masked_fill(kept[..., None], 7))
    assert (found.squared_distance[kept] == 7).all()


@pytest.mark.parametrize(("size", "d"), [(300, 3), (40, 260)])
def test_location_of_the_codes(size: int, d: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mean, spread and largest norm of two heads, over slices of several tiles, without the broken codes.

    A mean of K values has an error of at most K + 1 roundings of the largest.
    """
    monkeypatch.setattr(pack_module, "SLICES", 3)
    codebook = torch.randn(2, size, d, device=device())
    codebook[1, 7, 0], codebook[1, 7, 1], codebook[0, -1, -1] = torch.nan, 1e9, torch.inf
    _, where, _, codes = _pack(codebook[:, :1].contiguous(), codebook, "exact")
    for head, values in enumerate(codebook.double()):
        kept = values[values.isfinite().all(-1)]
        centre = kept.mean(0)
        bound = (size + 1) * 2.0**-53 * kept.abs().amax()
        assert (where.centre[head] - centre).abs().amax() <= bound
        assert (where.spread[head] - (kept - centre).abs().amax(0)).abs().amax() <= 2 * bound
        half = codes.half_squares[head]
        assert where.longest[head].view(torch.float32) == half[half.isfinite()].amax()


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_split_halves_hold_the_value(scale: float) -> None:
    """hi + lo is the centred value to 2⁻²² of it; each half has ten explicit bits of mantissa: (9).

    Codes a and −a: the centre is zero, so the values packed are the codes up to the power of two.
    """
    count = 500
    column = scale * torch.randn(1, count, 1, device=device())
    codebook = torch.cat([column, -column], 1)
    _, where, _, packed = _pack(codebook, codebook, "exact")
    assert (where.centre.abs() <= column.abs().amax() * 2.0**-52 * count).all()
    high, low = packed.high[0, : 2 * count, 0], packed.low[0, : 2 * count, 0]
    for half in (high, low):
        assert ((half.view(torch.int32) & 0x1FFF) == 0).all()
    spread = where.spread.amax()
    scaled = (codebook[0, :, 0].double() - where.centre[0]) / 2.0 ** spread.log2().floor()
    error = (high.double() + low.double() - scaled).abs()
    # One rounding to float32 and one of the rest, which is at most 2⁻¹¹ of it, to 11 bits.
    assert (error <= scaled.abs() * (2.0**-24 + 2.0**-22) + 2.0**-136).all()
    assert (packed.half_squares[0, 2 * count :] == torch.inf).all()
    assert (packed.high[0, 2 * count :] == 0).all()
    assert (packed.high[0, :, 1:] == 0).all()
    torch.testing.assert_close(
        packed.half_squares[0, : 2 * count].double(), 0.5 * scaled.square(), rtol=2.0**-23, atol=2.0**-149
    )
