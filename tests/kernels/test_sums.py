"""Sums of the vectors of each code, against a loop."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quantizers.kernels.sums.operation import code_sums, ema_code_sums

pytestmark = pytest.mark.usefixtures("implementation")


@given(
    data=st.data(), heads=st.integers(1, 3), size=st.integers(1, 5), n=st.integers(0, 30), dim=st.integers(1, 40)
)
def test_code_sums_against_a_loop(data: st.DataObject, heads: int, size: int, n: int, dim: int) -> None:
    indices = torch.tensor(
        data.draw(st.lists(st.integers(-1, size - 1), min_size=heads * n, max_size=heads * n)), dtype=torch.int64
    ).view(heads, n)
    x = torch.randn(heads, n, dim)
    x[indices < 0] = torch.nan  # what has no code must not reach a sum
    counts, sums = code_sums(x, indices, size)
    for head in range(heads):
        for code in range(size):
            chosen = x[head][indices[head] == code]
            assert counts[head, code] == len(chosen)
            assert torch.equal(sums[head, code], chosen.double().sum(0).float())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(("size", "dim"), [(1000, 5), (1000, 100), (30, 40)])
def test_code_sums_are_bit_equal_under_any_number_of_threads(dtype: torch.dtype, size: int, dim: int) -> None:
    """Hot codes and empty ones; thousands of vectors a code, where the order of a sum shows in its last bits.

    Threads share codes, or where the sums are small and have many channels, channels.
    """
    x = torch.randn(2, 20_000, dim).to(dtype)
    indices = torch.randint(0, size - 10, (2, 20_000)).square() // (size - 10) - 1
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            results.append(code_sums(x, indices, size))
    finally:
        torch.set_num_threads(before)
    for counts, sums in results[1:]:
        assert torch.equal(counts, results[0][0])
        assert torch.equal(sums, results[0][1])


def test_code_sums_gradient_is_that_of_the_code() -> None:
    x = torch.randn(1, 6, 3, requires_grad=True)
    indices = torch.tensor([[0, 2, 2, -1, 1, 0]])
    g = torch.randn(1, 4, 3)
    _, sums = code_sums(x, indices, 4)
    (gradient,) = torch.autograd.grad(sums, x, g)
    expected = g[0, indices[0]]
    expected[3] = 0
    assert torch.equal(gradient[0], expected)


@given(seed=st.integers(0, 2**31), decay=st.sampled_from([0.0, 0.9, 0.99]), n=st.integers(0, 30))
def test_averages_move_towards_the_batch(seed: int, decay: float, n: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, n, 3, generator=generator)
    indices = torch.randint(-1, 5, (2, n), generator=generator)
    indices[1] = -1  # a head without any vector that counts
    old = torch.rand(2, 5, generator=generator), torch.randn(2, 5, 3, generator=generator)
    counts, sums = code_sums(x, indices, 5)
    actual = ema_code_sums(x, indices, *old, decay)
    for new, average, batch in zip(actual, old, (counts, sums), strict=True):
        assert torch.equal(new[1], average[1])
        if (indices[0] >= 0).any():
            expected = decay * average[0].double() + (1 - decay) * batch[0].double()
            # γ, 1 − γ, two products and a sum, each within one rounding of values up to `scale`
            scale = average[0].abs() + batch[0].abs()
            assert ((new[0] - expected).abs() <= 4 * torch.finfo(torch.float32).eps * scale).all()


def test_a_sum_that_leaves_float32_is_left_out() -> None:
    x = torch.full((1, 4, 2), 3e38)
    x[0, 3] = 1.0
    indices = torch.tensor([[0, 0, 0, 1]])
    size, total = ema_code_sums(x, indices, torch.ones(1, 2), torch.ones(1, 2, 2), 0.5)
    assert size.tolist() == [[0.5, 1.0]]
    assert total.tolist() == [[[0.5, 0.5], [1.0, 1.0]]]
