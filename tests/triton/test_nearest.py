"""The Triton search against exact arithmetic and the reference, on odd shapes and hard values."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from quantizers.kernels.nearest import reference
from quantizers.kernels.nearest.triton import nearest
from quantizers.kernels.nearest.triton.nearest import nearest_code, nearest_lookup
from tests.effort import examples
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


@examples(15)
@given(data=st.data(), dim=st.integers(1, 4), values=st.sampled_from([finite, few, clustered]))
def test_is_exact(data: st.DataObject, dim: int, values: st.SearchStrategy[float]) -> None:
    """Ties, duplicates, denormals, clusters far apart, codes a rounding apart, values near overflow."""
    x, codebook = data.draw(vectors(dim, 6, values)), data.draw(vectors(dim, 12, values))
    indices, distance = nearest_code(x[None], codebook[None])
    assert_nearest(indices[0], x, codebook)
    exact = (x.double() - codebook.double()[indices[0]]).square().sum(-1)
    torch.testing.assert_close(distance[0], exact.float(), rtol=2.0**-23, atol=2.0**-149)


@examples(12)
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
    """Each layout; tiles that are not full, codes split over programs, resident and streamed rows."""
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
    """Every row is left to the exhaustive search, with equal codes in many groups and shares."""
    x = torch.randn(1, 40, 19, device=device())
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
@pytest.mark.parametrize(("n", "size", "d"), [(60, 150, 2), (5, 20, 200), (3, 20, 300)])
def test_small_integers_are_nearest_in_every_mode(mode: str, n: int, size: int, d: int) -> None:
    """No rounding anywhere: the mean of codes and their negatives is zero. With two channels there are ties
    everywhere, whose lowest index the modes without a certificate may miss.
    """
    torch.set_float32_matmul_precision(mode)
    x = torch.randint(-4, 5, (1, n, d), device=device()).float()
    codebook = torch.randint(-3, 4, (1, size, d), device=device()).float()
    codebook = torch.cat([codebook, -codebook], 1)
    if mode == "highest":
        assert_agrees(x, codebook)
    indices, distance = nearest_code(x, codebook)
    expected, expected_distance = reference.nearest_code(x, codebook)
    assert torch.equal(distance, expected_distance)
    assert (indices >= expected).all()


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


@pytest.mark.parametrize("mode", ["high", "medium"])
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_rounded_modes_are_near(mode: str, scale: float) -> None:
    """½d² of the code chosen exceeds the smallest by at most twice the error of a score.

    Both factors of the product are rounded to 11 bits, and D float32 additions follow, at most 2·2⁻²⁴ each:
    2 · 2⁻¹¹ · a R and 2D · 2⁻²⁴ (a R + ½R²).
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
    error = 2 * 2.0**-11 * length * radius + 2 * d * 2.0**-24 * (length * radius + radius.square())
    assert (chosen - distance.amin(1) <= 4 * error).all()
    assert (indices == distance.argmin(1)).float().mean() > 0.95  # and does not merely pick at random


def test_far_vectors_get_a_code_in_every_mode() -> None:
    """10³⁸ times as far out as the codes: the direction decides, and nothing overflows."""
    x = torch.tensor([[3e38, -3e38], [-3e38, -3e38], [3e38, 3e38]], device=device())[None]
    codebook = torch.tensor([[1.0, -1.0], [-1.0, -1.0], [1.0, 1.0]], device=device())[None]
    for mode in ("highest", "high", "medium"):
        torch.set_float32_matmul_precision(mode)
        assert nearest_code(x, codebook)[0].tolist() == [[0, 1, 2]]


def test_neither_chunks_nor_heads_nor_repetition_change_a_result() -> None:
    x, codebook = torch.randn(2, 70, 3, device=device()), torch.randn(2, 90, 3, device=device())
    codebook[:, 60:80] = codebook[:, 20:40] = codebook[:, :20]
    codebook[:, 80:] = codebook[:, :10]
    whole = nearest_lookup(x, codebook)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearest, "CHUNK", 32 * 31)  # 31 rows of two heads in 16 columns
        chunked = nearest_lookup(x, codebook)
        patch.setattr(nearest, "HEADS", 1)
        apart = nearest_lookup(x, codebook)
    for result in (chunked, apart, nearest_lookup(x, codebook)):
        assert all(torch.equal(a, b) for a, b in zip(result, whole, strict=True))


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


@pytest.mark.parametrize("small", [1e-3, 1e-6, 1e-15])
def test_vectors_and_codes_much_smaller_than_the_largest_code(small: float) -> None:
    """Such rows are scaled up for float16; such codes are lost in it, and float64 tells them apart."""
    x, codebook = torch.randn(1, 30, 5, device=device()), torch.randn(1, 80, 5, device=device())
    codebook[:, 10:] *= small
    x[:, 10:] *= small
    assert_agrees(x, codebook)


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
