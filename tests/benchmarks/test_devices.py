"""The measured ways to search without float64: pairs of float32 numbers are as exact as they claim."""

from fractions import Fraction

import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.devices import pairs
from benchmarks.devices.__main__ import collapsed, normal, ties
from benchmarks.kernels.shapes import Shape
from quantizers.kernels.common.dispatch import use_implementation
from quantizers.kernels.nearest.operation import nearest_code

# No product leaves the normal range, nor do its errors.
moderate = st.floats(2.0**-40, 2.0**40, width=32) | st.floats(-(2.0**40), -(2.0**-40), width=32)
SHAPE = Shape(300, 200, 5)


@given(a=moderate, b=moderate)
def test_sums_and_products_are_exact_as_pairs(a: float, b: float) -> None:
    x, y = torch.tensor(a), torch.tensor(b)
    for (high, low), exact in (
        (pairs.two_sum(x, y), Fraction(a) + Fraction(b)),
        (pairs.two_product(x, y), Fraction(a) * Fraction(b)),
    ):
        assert Fraction(float(high)) + Fraction(float(low)) == exact


@given(seed=st.integers(0, 2**31), dim=st.sampled_from([1, 3, 20]), gap=st.sampled_from([1.0, 1e-5]))
def test_distances_in_pairs_have_the_claimed_error(seed: int, dim: int, gap: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(10, dim, generator=generator)
    codes = x + gap * torch.randn(10, dim, generator=generator)
    high, low = pairs.squared_distances(x, codes)
    for row in range(10):
        terms = zip(x[row].tolist(), codes[row].tolist(), strict=True)
        exact = sum((Fraction(a) - Fraction(b)) ** 2 for a, b in terms)
        error = abs(Fraction(float(high[row])) + Fraction(float(low[row])) - exact)
        assert error <= (dim + 8) * Fraction(pairs.ROUNDOFF) * exact


def test_the_search_by_pairs_is_exact_and_leaves_ties_open() -> None:
    for data, leaves_open in ((normal, False), (ties, True), (collapsed, True)):
        x, codebook = data(SHAPE)
        indices, after_scores, after_pairs = pairs.nearest_code(x, codebook)
        with use_implementation("reference"):
            assert torch.equal(indices, nearest_code(x[None], codebook[None])[0][0])
        assert after_pairs <= after_scores
        assert (after_scores > 0) == leaves_open
