"""Counts, sums and moving averages against the reference, whose sums are rounded once from float64."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from quantizers.kernels.sums import reference
from quantizers.kernels.sums.triton import PIECE, code_sums, ema_code_sums
from tests.effort import examples
from tests.triton.interpreter import device, runs_kernels

pytestmark = runs_kernels

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def on_device(*tensors: Tensor) -> list[Tensor]:
    return [tensor.to(device()) for tensor in tensors]


def assert_sums(x: Tensor, indices: Tensor, size: int) -> None:
    counts, sums = (result.cpu() for result in code_sums(*on_device(x, indices), size))
    expected_counts, expected = reference.code_sums(x, indices, size)
    assert counts.dtype == expected_counts.dtype
    assert sums.dtype == expected.dtype
    assert torch.equal(counts, expected_counts)
    # Both are within N float64 roundings of the sum of magnitudes, and are then rounded to the result's dtype.
    magnitude = reference.code_sums(x.double().abs(), indices, size)[1]
    bound = 2 * x.shape[1] * 2.0**-53 * magnitude + torch.finfo(sums.dtype).eps * expected.double().abs()
    assert ((sums.double() - expected.double()).abs() <= bound).all()


@examples(15)
@given(
    seed=st.integers(0, 2**31),
    heads=st.integers(1, 3),
    n=st.sampled_from([0, 1, 5, 63, 130]),
    size=st.sampled_from([1, 2, 7]),
    d=st.sampled_from([1, 3, 17]),
    dtype=st.sampled_from(DTYPES),
)
def test_code_sums(seed: int, heads: int, n: int, size: int, d: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(heads, n, d, generator=generator).to(dtype)
    indices = torch.randint(-1, size, (heads, n), generator=generator)
    x[indices < 0] = torch.nan  # what has no code must not reach a sum
    assert_sums(x, indices, size)


@pytest.mark.parametrize("n", [PIECE, PIECE + 1, 3 * PIECE, 5 * PIECE + 3])
def test_one_code_takes_the_whole_batch(n: int) -> None:
    x, indices = torch.randn(2, n, 5), torch.full((2, n), 1)
    indices[1] = 2
    assert_sums(x, indices, 3)


def test_wide_vectors_and_pieces_of_several_codes() -> None:
    """Two programs for the channels, and hot codes beside cold ones."""
    indices = torch.tensor([0, 0, 0, 3])[torch.randint(0, 4, (1, 6 * PIECE))]
    indices[0, :7] = -1
    assert_sums(torch.randn(1, 6 * PIECE, 130), indices, 5)


def test_no_vector_has_a_code() -> None:
    n = 2 * PIECE
    assert_sums(torch.full((1, n, 2), torch.nan), torch.full((1, n), -1), 3)


def test_sums_are_bit_equal_from_run_to_run_and_for_any_strides() -> None:
    x, indices = on_device(torch.randn(1, 300, 6), torch.randint(0, 2, (1, 300)))
    first, second = code_sums(x, indices, 2), code_sums(x, indices, 2)
    assert torch.equal(first[1], second[1])
    strided = x.transpose(1, 2).contiguous().transpose(1, 2)
    assert not strided.is_contiguous()
    assert torch.equal(code_sums(strided, indices, 2)[1], first[1])


def assert_averages(x: Tensor, indices: Tensor, cluster_size: Tensor, embedding_sum: Tensor, decay: float) -> None:
    state = [cluster_size, embedding_sum]
    results = ema_code_sums(*on_device(x, indices, *state), decay)
    expected = reference.ema_code_sums(x, indices, *state, decay)
    counts, sums = reference.code_sums(x, indices, cluster_size.shape[1])
    for result, right, old, batch in zip(results, expected, state, (counts, sums), strict=True):
        # Two products and a sum, in either implementation, of a batch's sum that may differ in its last bit.
        magnitude = old.abs() + batch.nan_to_num(0, 0, 0).abs()
        assert result.dtype == old.dtype
        assert ((result.cpu() - right).abs() <= 4 * torch.finfo(old.dtype).eps * magnitude).all()


@examples(8)
@given(seed=st.integers(0, 2**31), decay=st.sampled_from([0.0, 0.5, 0.99]), d=st.sampled_from([1, 6, 140]))
def test_averages(seed: int, decay: float, d: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 150, d, generator=generator)
    indices = torch.randint(-1, 3, (2, 150), generator=generator)
    state = torch.rand(2, 4, generator=generator), torch.randn(2, 4, d, generator=generator)
    assert_averages(x, indices, *state, decay)


def test_a_head_without_vectors_keeps_its_averages() -> None:
    indices = torch.full((2, 20), -1)
    indices[1, 3] = 0
    state = torch.rand(2, 4), torch.randn(2, 4, 3)
    x = torch.randn(2, 20, 3)
    assert_averages(x, indices, *state, 0.5)
    new_size, new_sum = (t.cpu() for t in ema_code_sums(*on_device(x, indices, *state), 0.5))
    assert torch.equal(new_size[0], state[0][0])
    assert torch.equal(new_sum[0], state[1][0])


@pytest.mark.parametrize("d", [3, 200])
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")  # numpy's, of the conversion to float32
def test_a_sum_beyond_float32_is_not_taken(d: int) -> None:
    """Its code takes nothing; where it is a head's only code, the head keeps all of its averages."""
    x = torch.ones(2, 4, d)
    x[:, :2, -1] = 3e38
    indices = torch.tensor([[0, 0, 1, 1], [2, 2, -1, -1]])
    state = torch.rand(2, 3), torch.randn(2, 3, d)
    assert_averages(x, indices, *state, 0.5)
    new_size, new_sum = (t.cpu() for t in ema_code_sums(*on_device(x, indices, *state), 0.5))
    assert torch.equal(new_sum[0, 0], 0.5 * state[1][0, 0])
    assert torch.equal(new_size[1], state[0][1])
    assert torch.equal(new_sum[1], state[1][1])


def test_a_sum_may_leave_float32_on_the_way() -> None:
    """In whatever order a program adds rows: two of the four terms exceed float32, and some code begins with them.

    All terms are multiples of 2¹²⁶, so that every partial sum is exact in float64.
    """
    terms = torch.tensor([2.0**127, 2.0**127, -(2.0**127), -(2.0**126)])
    orders = torch.tensor(list(itertools.permutations(range(4))))
    x, indices = terms[orders].view(1, -1, 1), torch.arange(len(orders)).repeat_interleave(4)[None]
    assert (code_sums(*on_device(x, indices), len(orders))[1] == 2.0**126).all()


def test_the_sum_of_a_piece_may_exceed_float32() -> None:
    """A code with a piece of positive vectors, then one of negative ones; again, every partial sum is exact."""
    x = torch.full((1, 2 * PIECE, 1), 2.0**127)
    x[:, PIECE:] *= -1
    x[:, -1] /= 2
    counts, sums = code_sums(*on_device(x, torch.zeros(1, 2 * PIECE, dtype=torch.int64)), 1)
    assert counts.item() == 2 * PIECE
    assert sums.item() == 2.0**126
