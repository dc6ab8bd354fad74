"""The nearest code against exact arithmetic."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from quantizers.kernels.highest.operation import highest_score
from quantizers.kernels.nearest import blocked, reference
from quantizers.kernels.nearest.operation import nearest_code, nearest_lookup
from tests.effort import examples
from tests.exact import assert_nearest
from tests.implementations import IMPLEMENTATIONS, PRUNED, under
from tests.vectors import few, finite, vectors

pytestmark = pytest.mark.usefixtures("implementation")


@pytest.fixture(params=[*IMPLEMENTATIONS, *PRUNED])
def implementation(request: pytest.FixtureRequest) -> Iterator[str]:
    """Also those that leave codes out of a search."""
    with under(request.param):
        yield request.param


@examples(500)
@given(data=st.data(), dim=st.integers(1, 4), values=st.sampled_from([finite, few]))
def test_nearest_code_is_exact(data: st.DataObject, dim: int, values: st.SearchStrategy[float]) -> None:
    """Any float32 values: ties, duplicates, denormals, clusters far apart and codes a rounding apart."""
    x, codebook = data.draw(vectors(dim, 6, values)), data.draw(vectors(dim, 12, values))
    indices, distance = nearest_code(x[None], codebook[None])
    assert_nearest(indices[0], x, codebook)
    torch.testing.assert_close(distance[0], (x - codebook[indices[0]]).square().sum(-1), equal_nan=True)


@given(
    seed=st.integers(0, 2**31),
    dim=st.sampled_from([1, 3, 8, 33]),
    offset=st.sampled_from([0.0, 100.0, 1000.0, -1e6]),
    scale=st.sampled_from([1e-3, 1.0, 1e4]),
    dtype=st.sampled_from([torch.bfloat16, torch.float16, torch.float32, torch.float64]),
)
def test_nearest_code_is_exact_at_any_offset(
    seed: int, dim: int, offset: float, scale: float, dtype: torch.dtype
) -> None:
    if dtype == torch.float16:
        offset, scale = max(min(offset, 1000.0), -1000.0), min(scale, 100.0)
    generator = torch.Generator().manual_seed(seed)
    x = (offset + scale * torch.randn(20, dim, generator=generator)).to(dtype)
    codebook = (offset + scale * torch.randn(30, dim, generator=generator)).to(dtype)
    assert_nearest(nearest_code(x[None], codebook[None])[0][0], x, codebook)


@given(seed=st.integers(0, 2**31), heads=st.integers(1, 3), budget=st.sampled_from([1, 50, 1000]))
def test_nearest_code_blocks_and_heads(seed: int, heads: int, budget: int) -> None:
    """Neither the block size nor another head's codes change a result."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(heads, 17, 3, generator=generator)
    codebook = torch.randn(heads, 13, 3, generator=generator)
    expected = torch.stack(
        [torch.cdist(a.double(), b.double()).argmin(1) for a, b in zip(x, codebook, strict=True)]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "SCORE_BUDGET", budget)
        patch.setattr(blocked, "ROWS", max(1, budget // 10))
        patch.setattr(blocked, "SMALL_GROUP", max(1, budget // 20))
        patch.setattr(blocked, "PAIR_BUDGET", budget)
        assert torch.equal(nearest_code(x, codebook)[0], expected)


SHAPES = [
    (1, 1, 1),
    (3, 1, 5),
    (1, 40, 2),
    (129, 13, 1),
    (257, 300, 7),
    (65, 4097, 3),
    (40, 9001, 8),
    (70, 129, 130),
]
DATA = {
    "normal": lambda shape: torch.randn(shape),
    "mean 100, spread 0.1": lambda shape: 100 + 0.1 * torch.randn(shape),
    "two far clusters": lambda shape: torch.randn(shape) + 1000 * torch.randint(0, 2, (shape[0], 1)),
    "few values": lambda shape: torch.randint(-1, 2, shape).float(),
    "tiny": lambda shape: 1e-21 * torch.randn(shape),  # products leave float32's normal range
    "huge": lambda shape: 1e20 * torch.randn(shape),  # squares leave float32
}


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_nearest_code_of_many(shape: tuple[int, int, int], data: str) -> None:
    """Shapes that fill blocks, tiles and groups of codes, and that do not; against the reference in float64."""
    n, k, d = shape
    x, codebook = DATA[data]((n, d)), DATA[data]((k, d))
    expected, distance = reference.nearest_code(x[None].double(), codebook[None].double())
    indices, codes, actual = (output[0] for output in _lookup(x, codebook))
    assert torch.equal(indices, expected[0])
    assert torch.equal(codes, codebook[expected[0]])
    # D differences, squares and sums in float32: a relative (D + 2)·2⁻²⁴ each way, and what is below its range.
    bound = (d + 2) * 2.0**-23 * distance[0] + d * 2.0**-126
    assert ((actual.double() - distance[0]).abs() <= bound).logical_or(distance[0] > 3e38).all()


def _lookup(x: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Indices, codes and squared distances of `nearest_lookup`, a head in front."""
    codes, indices, distance = nearest_lookup(x[None], codebook[None], 1.0, 0.0)
    return indices, codes, distance


def test_nearest_code_of_a_collapsed_codebook() -> None:
    """Codes U(−1/K, 1/K), among which a float32 score cannot tell, and half of them equal."""
    x, codebook = torch.randn(200, 16), (torch.rand(512, 16) * 2 - 1) / 512
    codebook[256:] = codebook[0]
    assert_nearest(_lookup(x[:20], codebook)[0][0], x[:20], codebook)
    expected, _ = reference.nearest_code(x[None], codebook[None])
    assert torch.equal(_lookup(x, codebook)[0], expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_exact_in_its_own_values(dtype: torch.dtype) -> None:
    x, codebook = torch.randn(300, 9).to(dtype), torch.randn(70, 9).to(dtype)
    indices, codes, distance = _lookup(x, codebook)
    assert codes.dtype == distance.dtype == torch.float32
    assert torch.equal(indices, _lookup(x.double(), codebook.double())[0])


@pytest.mark.parametrize("flushed", [False, True])
def test_denormal_products_are_not_trusted(flushed: bool) -> None:
    """Scores of 10⁻⁴², most of whose digits float32 has lost; with flushing, all of them."""
    if not torch.set_flush_denormal(flushed):
        pytest.skip("this machine cannot flush denormals")
    try:
        x, codebook = 1e-21 * torch.randn(50, 3), 1e-21 * torch.randn(40, 3)
        indices = _lookup(x, codebook)[0][0]
    finally:
        torch.set_flush_denormal(False)
    assert_nearest(indices, x, codebook)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_change_nothing(threads: int) -> None:
    x, codebook = torch.randn(1, 3000, 5), torch.randn(1, 700, 5)
    before = torch.get_num_threads()
    expected = nearest_code(x, codebook)
    try:
        torch.set_num_threads(threads)
        actual = nearest_code(x, codebook)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


def test_views_are_read_as_they_are() -> None:
    """Transposed, strided, expanded, and a channel-last slice."""
    x, codebook = torch.randn(6, 2, 40), torch.randn(80, 6)[::2]
    views = [x.permute(1, 2, 0), x[:, :1].expand(6, 2, 40).permute(1, 2, 0)[:, ::3]]
    for view in views:
        both = codebook.expand(2, 40, 6)
        actual = nearest_lookup(view, both, 1.0, 0.0)
        expected = nearest_lookup(view.contiguous(), both.contiguous(), 1.0, 0.0)
        assert torch.equal(actual[0], expected[0])
        assert torch.equal(actual[1], expected[1])
        torch.testing.assert_close(actual[2], expected[2])  # sums in another order


@pytest.mark.parametrize("heads", [0, 1, 2])
def test_no_vectors_no_indices(heads: int) -> None:
    codes, indices, loss = nearest_lookup(torch.randn(heads, 0, 3), torch.randn(heads, 4, 3))
    assert codes.shape == (heads, 0, 3)
    assert indices.shape == loss.shape == (heads, 0)


@given(
    seed=st.integers(0, 2**31), n=st.integers(1, 30), weights=st.sampled_from([(0.25, 1.0), (1.0, 0.0), (0, 2)])
)
def test_lookup_gradients(seed: int, n: int, weights: tuple[float, float]) -> None:
    """Of code, vector and loss, against autograd through a gather, in float64."""
    generator = torch.Generator().manual_seed(seed)
    x, codebook, g = (torch.randn(2, s, 3, generator=generator, dtype=torch.float64) for s in (n, 7, n))
    x.requires_grad_()
    codebook.requires_grad_()
    codes, indices, loss = nearest_lookup(x, codebook, *weights)
    actual = torch.autograd.grad((codes * g).sum() + loss.sin().sum(), [x, codebook])

    chosen = codebook.gather(1, indices[..., None].expand(-1, -1, 3))
    to_x, to_code = ((x - chosen.detach()).square().sum(-1), (x.detach() - chosen).square().sum(-1))
    error = weights[0] * to_x + weights[1] * to_code
    expected = torch.autograd.grad((chosen * g).sum() + error.sin().sum(), [x, codebook])
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b)  # float64's default: 1e-7 relative, 1e-7 absolute


def test_lookup_of_a_broken_vector() -> None:
    """Index −1, a zero code, no loss, and no gradient anywhere."""
    x = torch.randn(1, 5, 3)
    x[0, 2, 1] = torch.nan
    codebook = torch.randn(1, 4, 3, requires_grad=True)
    x.requires_grad_()
    codes, indices, loss = nearest_lookup(x, codebook)
    to_x, to_codes = torch.autograd.grad(loss.sum() + codes.sum(), [x, codebook])
    assert indices[0, 2] == -1
    assert (codes[0, 2] == 0).all()
    assert loss[0, 2] == 0
    assert (to_x[0, 2] == 0).all()
    assert to_codes.isfinite().all()


def test_nearest_code_duplicates_go_to_the_lowest_index() -> None:
    """Wide rows, where a matrix product sums the columns at its edges in another order."""
    x = torch.randn(1, 257, 129)
    codebook = torch.randn(1, 7, 129).repeat(1, 31, 1)
    assert (nearest_code(x, codebook)[0] < 7).all()


def test_codes_that_only_scores_tell_apart() -> None:
    """A vector so far out that all distances round to one number. The two equal codes leave it to distances, which
    must not bring back the code that scores have ruled out."""
    x, codebook = torch.tensor([[[1e20]]]), torch.tensor([[[0.0], [1.0], [1.0]]])
    assert nearest_code(x, codebook)[0] == 1


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_nearest_code_of_broken_vectors_and_codes(value: float) -> None:
    x, codebook = torch.randn(1, 10, 4), torch.randn(1, 6, 4)
    expected, _ = nearest_code(x, codebook[:, 2:])
    codebook[0, 0, 1] = codebook[0, 1, 3] = value
    indices, _ = nearest_code(x, codebook)
    assert torch.equal(indices, expected + 2)

    x[0, 4, 2] = value
    indices, distance = nearest_code(x, codebook)
    assert indices[0, 4] == -1
    assert distance[0, 4].isnan()
    assert torch.equal(indices[0, 5:], expected[0, 5:] + 2)

    codebook[:] = value
    assert (nearest_code(x, codebook)[0] == -1).all()


@given(data=st.data(), dim=st.integers(1, 3))
def test_highest_score_is_exact(data: st.DataObject, dim: int) -> None:
    values = st.sampled_from([0.0, 1.0, -1.0, 0.25, 100.0])  # products and sums of these are exact in float64
    x, keys = data.draw(vectors(dim, 6, values)), data.draw(vectors(dim, 12, values))
    bias = data.draw(vectors(1, 12, values)).flatten()
    size = min(len(keys), len(bias))
    scores = x.double() @ keys[:size].double().T + bias[:size].double()
    lowest = (scores == scores.amax(1, keepdim=True)).long().argmax(1)
    assert torch.equal(highest_score(x, keys[:size], bias[:size]), lowest)
