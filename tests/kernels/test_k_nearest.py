"""The k nearest codes against exact arithmetic, and against `nearest_code` of what is left."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from quantizers.kernels.k_nearest import reference
from quantizers.kernels.k_nearest.operation import k_nearest_codes
from quantizers.kernels.nearest.operation import nearest_code
from tests.cases import normal
from tests.effort import examples
from tests.exact import assert_k_nearest
from tests.vectors import few, finite, vectors

pytestmark = pytest.mark.usefixtures("implementation")


def searched(x: Tensor, codebook: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Indices [N, k] and squared distances [N, k] of vectors [N, D] and codes [K, D]."""
    indices, distance = k_nearest_codes(x[None], codebook[None], k)
    return indices[0], distance[0]


@examples(200)
@given(data=st.data(), dim=st.integers(1, 4), values=st.sampled_from([finite, few]))
def test_every_place_is_exact(data: st.DataObject, dim: int, values: st.SearchStrategy[float]) -> None:
    """Any float32 values: ties, duplicates, denormals, clusters far apart and codes a rounding apart."""
    x, codebook = data.draw(vectors(dim, 5, values)), data.draw(vectors(dim, 12, values))
    k = data.draw(st.integers(1, len(codebook)))
    indices, distance = searched(x, codebook, k)
    assert_k_nearest(indices, x, codebook)
    torch.testing.assert_close(distance, (x[:, None] - codebook[indices]).square().sum(-1), equal_nan=True)


@given(
    seed=st.integers(0, 2**31),
    dim=st.sampled_from([1, 3, 8, 33]),
    offset=st.sampled_from([0.0, 100.0, -1e6]),
    dtype=st.sampled_from([torch.bfloat16, torch.float16, torch.float32, torch.float64]),
)
def test_every_place_is_exact_at_any_offset(seed: int, dim: int, offset: float, dtype: torch.dtype) -> None:
    if dtype == torch.float16:
        offset = max(offset, -1000.0)
    generator = torch.Generator().manual_seed(seed)
    x, codebook = ((offset + torch.randn(n, dim, generator=generator)).to(dtype) for n in (8, 30))
    assert_k_nearest(searched(x, codebook, 30)[0], x, codebook)


@given(data=st.data(), dim=st.integers(1, 3), values=st.sampled_from([finite, few]))
def test_fewer_are_the_first_of_more(data: st.DataObject, dim: int, values: st.SearchStrategy[float]) -> None:
    """And one is what `nearest_code` finds, bit for bit."""
    x, codebook = data.draw(vectors(dim, 5, values)), data.draw(vectors(dim, 12, values))
    indices, distance = searched(x, codebook, len(codebook))
    for k in range(1, len(codebook)):
        fewer, nearer = searched(x, codebook, k)
        assert torch.equal(fewer, indices[:, :k])
        if k > 1:
            assert torch.equal(nearer, distance[:, :k])
    index, nearest = nearest_code(x[None], codebook[None])
    assert torch.equal(index[0], indices[:, 0])
    assert torch.equal(nearest[0], searched(x, codebook, 1)[1][:, 0])


SHAPES = [(1, 1, 1), (3, 2, 5), (129, 13, 1), (257, 300, 7), (65, 4097, 3), (70, 129, 130), (20, 70, 1024)]
DATA = {
    "normal": lambda shape: torch.randn(shape),
    "mean 100, spread 0.1": lambda shape: 100 + 0.1 * torch.randn(shape),
    "few values": lambda shape: torch.randint(-1, 2, shape).float(),
    "tiny": lambda shape: 1e-21 * torch.randn(shape),  # products leave float32's normal range
    "huge": lambda shape: 1e20 * torch.randn(shape),  # squares leave float32
}


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_many(shape: tuple[int, int, int], data: str) -> None:
    """Shapes that fill blocks, tiles and groups of codes, and that do not; against all distances, sorted."""
    n, size, d = shape
    x, codebook = DATA[data]((n, d)), DATA[data]((size, d))
    every = (x.double()[:, None] - codebook.double()).square()
    # Sums of small integers are exact, and the sort is stable: ties in the order of their indices.
    distance, order = every.sum(-1).sort(stable=True)
    for k in {1, min(7, size), min(300, size)}:
        indices, actual = searched(x, codebook, k)
        # D differences, squares and sums in float64, rounded once; nearest_code itself may sum in float32.
        bound = (d + 2) * 2.0**-24 * distance[:, :k] + d * 2.0**-126
        assert ((actual.double() - distance[:, :k]).abs() <= bound).logical_or(distance[:, :k] > 3e38).all()
        assert torch.equal(indices, order[:, :k])


def test_a_codebook_of_duplicates_is_sorted_by_index() -> None:
    x, codebook = torch.randn(40, 6), torch.randn(9, 6).repeat(20, 1)
    indices, distance = searched(x, codebook, 180)
    assert torch.equal(indices.sort().values, torch.arange(180).expand(40, -1))
    assert (indices.view(40, 9, 20) % 9 == indices.view(40, 9, 20)[..., :1]).all()
    assert (indices.view(40, 9, 20).diff() == 9).all()
    assert (distance.diff() >= 0).all()


def test_one_distant_code_hides_the_differences_of_all_others() -> None:
    """Its length determines the error of every score, and codes are nearer together than that."""
    x, codebook = torch.randn(30, 4), torch.randn(40, 4)
    codebook[7], codebook[20:30] = 1e9, codebook[0]
    assert_k_nearest(searched(x, codebook, 40)[0], x, codebook)


@pytest.mark.parametrize("budget", [1, 50, 1000])
def test_blocks_and_heads_change_nothing(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, codebook = torch.randn(3, 17, 3), torch.randn(3, 13, 3)
    distance = (x[:, :, None] - codebook[:, None]).square().sum(-1)
    monkeypatch.setattr(reference, "SCORE_BUDGET", budget)
    assert torch.equal(k_nearest_codes(x, codebook, 13)[0], distance.argsort())


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_change_nothing(threads: int) -> None:
    x, codebook = torch.randn(1, 1000, 5), torch.randn(1, 700, 5)
    before = torch.get_num_threads()
    expected = k_nearest_codes(x, codebook, 5)
    try:
        torch.set_num_threads(threads)
        actual = k_nearest_codes(x, codebook, 5)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


def test_views_are_read_as_they_are() -> None:
    x, codebook = torch.randn(6, 2, 40), torch.randn(80, 6)[::2]
    for view in (x.permute(1, 2, 0), x[:, :1].expand(6, 2, 40).permute(1, 2, 0)[:, ::3]):
        both = codebook.expand(2, 40, 6)
        actual = k_nearest_codes(view, both, 4)
        expected = k_nearest_codes(view.contiguous(), both.contiguous(), 4)
        assert torch.equal(actual[0], expected[0])
        torch.testing.assert_close(actual[1], expected[1])  # sums in another order


@pytest.mark.parametrize("heads", [0, 1, 2])
def test_no_vectors_no_indices(heads: int) -> None:
    indices, distance = k_nearest_codes(torch.randn(heads, 0, 3), torch.randn(heads, 4, 3), 2)
    assert indices.shape == distance.shape == (heads, 0, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_broken_vectors_and_codes(value: float, dtype: torch.dtype) -> None:
    x, codebook = torch.randn(10, 4, dtype=dtype), torch.randn(6, 4, dtype=dtype)
    expected, _ = searched(x, codebook[2:], 4)
    codebook[0, 1] = codebook[1, 3] = x[3, 2] = value
    for k in (2, 4, 5, 6):
        indices, distance = searched(x, codebook, k)
        whole = torch.arange(10) != 3
        assert torch.equal(indices[whole, :4], expected[whole, :k] + 2)
        assert (indices[:, 4:] == -1).all()
        assert (indices[3] == -1).all()
        assert torch.equal(distance.isnan(), indices < 0)
    codebook[:] = value
    assert (searched(x, codebook, 3)[0] == -1).all()


def test_rows_that_float32_cannot_score() -> None:
    """Beyond 10³⁷ a score may overflow; there are as many codes as before."""
    x = torch.tensor([[3e38, 0.0], [-3e38, 1.0]])
    codebook = torch.tensor([[1.0, 0.0], [3.0, 0.0], [2.0, 0.0], [2.0, 0.0]])
    indices, _ = searched(x, codebook, 4)
    assert indices.tolist() == [[1, 2, 3, 0], [0, 2, 3, 1]]


@given(seed=st.integers(0, 999), exponent=st.integers(2, 18), dim=st.sampled_from([1, 4, 9]), k=st.integers(1, 9))
def test_rows_far_from_all_codes(seed: int, exponent: int, dim: int, k: int) -> None:
    """Rounding to their own length hides how far the codes are apart: scores decide, those of the reference."""
    x = (10.0**exponent * normal(seed, 20, dim)).float()
    codebook = (1e4 * normal(seed + 1, 50, 1).round() + normal(seed + 2, 50, dim)).float()
    indices, _ = searched(x, codebook, k)
    assert torch.equal(indices, reference.k_nearest_codes(x[None], codebook[None], k)[0][0])
    assert torch.equal(indices[:, 0], nearest_code(x[None], codebook[None])[0][0])


def test_under_vmap_and_in_a_graph() -> None:
    x, codebook = torch.randn(2, 3, 8, 4), torch.randn(2, 3, 10, 4)
    expected = [k_nearest_codes(a, b, 3)[0] for a, b in zip(x, codebook, strict=True)]

    def search(x: Tensor, codebook: Tensor) -> Tensor:
        return k_nearest_codes(x, codebook, 3)[0]

    assert torch.equal(torch.vmap(search)(x, codebook), torch.stack(expected))
    compiled = torch.compile(search, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x[0], codebook[0]), expected[0])
