"""The search of the leaves that remain: the results of the search of all codes, bit for bit, in any order."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from quantizers.kernels.nearest.triton import nearest
from quantizers.kernels.nearest.triton.nearest import nearest_lookup, search_of
from quantizers.kernels.nearest.triton.pruned import search as pruned_search
from quantizers.kernels.nearest.triton.pruned.order import CodeOrder, orders
from tests.effort import examples
from tests.synchronisation import NoSynchronisation
from tests.triton.interpreter import device, runs_kernels
from tests.triton.pruned_inputs import ORDERS, clustered_data, order_of, pruned
from tests.triton.search_inputs import clustered, few, finite, vectors

pytestmark = [
    runs_kernels,
    # The interpreter computes with numpy, which reports what a GPU does in silence: float32 that overflows.
    pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning"),
]


def assert_unchanged(x: Tensor, codebook: Tensor, order: CodeOrder) -> None:
    """Indices, codes and distances are those of the search of all codes."""
    expected = nearest_lookup(x, codebook)
    with pruned(x, codebook, order):
        found = nearest_lookup(x, codebook)
    for actual, result in zip(found, expected, strict=True):
        assert torch.equal(actual.nan_to_num(nan=-1.0), result.nan_to_num(nan=-1.0))
        assert torch.equal(actual.isnan(), result.isnan())


@examples(15)
@given(
    data=st.data(),
    dim=st.integers(1, 10),
    size=st.integers(1, 100),
    values=st.sampled_from([finite, few, clustered]),
    kind=st.sampled_from(ORDERS),
    seed=st.integers(0, 2**31),
)
def test_hard_values(
    data: st.DataObject, dim: int, size: int, values: st.SearchStrategy[float], kind: str, seed: int
) -> None:
    """Duplicates in several leaves, denormals, clusters far apart, values near overflow."""
    torch.manual_seed(seed)
    x, different = data.draw(vectors(dim, 6, values)), data.draw(vectors(dim, 12, values))
    codebook = different[torch.randint(len(different), (size,)).to(device())]
    assert_unchanged(torch.cat([x, different])[None], codebook[None], order_of(codebook[None], kind))


@examples(8)
@given(
    heads=st.integers(1, 2),
    n=st.integers(1, 70),
    size=st.integers(1, 140),
    d=st.sampled_from([1, 3, 8, 9, 33]),
    scale=st.sampled_from([1.0, 1e-30, 1e30]),
    offset=st.sampled_from([0.0, 100.0]),
    kind=st.sampled_from(ORDERS),
    leaf=st.sampled_from([32, 64, 128]),
    seed=st.integers(0, 2**31),
)
def test_shapes(
    heads: int, n: int, size: int, d: int, scale: float, offset: float, kind: str, leaf: int, seed: int
) -> None:
    torch.manual_seed(seed)
    x, codebook = torch.cat([torch.cat(clustered_data(n, size, d), 1) for _ in range(heads)]).split([n, size], 1)
    x, codebook = scale * (offset + x), scale * (offset + codebook)
    assert_unchanged(x, codebook, order_of(codebook, kind, leaf))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_dtypes(dtype: torch.dtype) -> None:
    """float64 inputs are compared in float64, whatever has been measured."""
    x, codebook = clustered_data(30, 100, 6)
    assert_unchanged(x.to(dtype), codebook, order_of(codebook))
    assert_unchanged(x, codebook.to(dtype), order_of(codebook))


def test_streamed_rows_and_strides() -> None:
    x, codebook = clustered_data(6, 100, 300)
    assert_unchanged(x.mT.contiguous().mT, codebook[:, ::2], order_of(codebook[:, ::2]))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_broken_vectors_and_codes(value: float) -> None:
    """A tile of broken rows only, a leaf of broken codes only, and a codebook without any other."""
    x, codebook = clustered_data(90, 100, 5)
    order = order_of(codebook)
    x[0, 3, 2] = x[0, 20:, 0] = codebook[0, 7, 1] = value
    codebook[0, order.codes[0, :32].long(), 4] = value
    assert_unchanged(x, codebook, order)
    assert_unchanged(x, codebook, order_of(codebook))
    assert_unchanged(x[:, :5], torch.full_like(codebook, value), order)


def test_equal_codes_and_clusters_far_apart() -> None:
    x, codebook = clustered_data(40, 100, 4)
    equal = codebook[:, :1].expand_as(codebook)
    assert_unchanged(torch.cat([x, equal[:, :3]], 1), equal, order_of(equal))
    x[:, ::2] += 1e6
    codebook[:, ::2] += 1e6
    assert_unchanged(x, codebook, order_of(codebook))
    x[:, ::3] *= 1e25
    assert_unchanged(x, codebook, order_of(codebook))


@pytest.mark.parametrize("mode", ["high", "medium"])
@pytest.mark.parametrize("kind", ORDERS)
def test_modes_without_a_certificate_find_codes_as_near(mode: str, kind: str) -> None:
    """Small integers, which no mode rounds: of equally near codes these modes may take another."""
    torch.set_float32_matmul_precision(mode)
    x = torch.randint(-4, 5, (1, 60, 3), device=device()).float()
    codebook = torch.randint(-3, 4, (1, 75, 3), device=device()).float()
    codebook = torch.cat([codebook, -codebook], 1)
    _, _, expected = nearest_lookup(x, codebook)
    with pruned(x, codebook, order_of(codebook, kind)):
        _, _, distance = nearest_lookup(x, codebook)
    assert torch.equal(distance, expected)


def test_neither_chunks_nor_heads_change_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    x, codebook = clustered_data(70, 100, 3)
    order = order_of(codebook)
    monkeypatch.setattr(pruned_search, "LISTED", order.leaves)  # 64 rows
    assert_unchanged(x, codebook, order)
    x, codebook = x[:, :10].expand(2, -1, -1), codebook.expand(2, -1, -1)
    monkeypatch.setattr(nearest, "HEADS", 1)  # an order of two heads is none of one
    assert_unchanged(x, codebook, order_of(codebook))


def test_reads_nothing_back() -> None:
    x, codebook = clustered_data(70, 100, 12)
    with pruned(x, codebook, order_of(codebook)), NoSynchronisation():
        nearest_lookup(x, codebook)


def test_an_order_of_another_number_of_heads_is_not_used() -> None:
    """Searches with equally many rows in all have the same tiles, and would share the order."""
    x, codebook = torch.randn(2, 100, 3, device=device()), torch.randn(2, 80, 3, device=device())
    one = codebook[:1]
    assert search_of(x, codebook) == search_of(x.view(1, 200, 3), one)
    orders[search_of(x, codebook)] = order_of(one)
    try:
        nearest_lookup(x, codebook)
    finally:
        orders.clear()
