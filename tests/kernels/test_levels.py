"""FSQ's levels against the nearest of all levels, and the gradient against the bound's own."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quantizers.kernels.levels.bound import bound_levels
from quantizers.kernels.levels.digits import index_digits, level_values
from quantizers.kernels.levels.operation import round_levels

pytestmark = pytest.mark.usefixtures("implementation")

levels_lists = st.lists(st.sampled_from([2, 3, 4, 5, 8, 16, 255, 1000, 1001]), min_size=1, max_size=6)


@given(seed=st.integers(0, 2**31), counts=levels_lists, slope=st.sampled_from([1.0, 0.8]), double=st.booleans())
def test_nearest_level_and_its_index(seed: int, counts: list[int], slope: float, double: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    z = (3 * torch.randn(20, len(counts), generator=generator)).to(torch.float64 if double else torch.float32)
    levels = torch.tensor(counts)
    codes, indices = round_levels(z, counts, slope)
    assert codes.dtype == z.dtype
    digits = index_digits(indices, levels)
    assert torch.equal(level_values(digits, levels, z.dtype), codes)  # what `decode` gives, bit for bit
    bounded = bound_levels(z.double(), levels, slope)
    assert (indices >= 0).all()
    for channel, count in enumerate(counts):
        grid = (torch.arange(count).double() - count // 2) / (count // 2)
        distance = (bounded[:, channel, None] - grid).abs()
        chosen = distance.gather(1, digits[:, channel, None])[:, 0]
        # tanh in z's dtype: a few roundings of a number up to 1 + margin
        assert (chosen <= distance.amin(1) + 16 * torch.finfo(z.dtype).eps).all()


@given(seed=st.integers(0, 2**31), counts=levels_lists, slope=st.sampled_from([1.0, 0.8]))
def test_gradient_is_the_bounds(seed: int, counts: list[int], slope: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    z = (2 * torch.randn(10, len(counts), generator=generator, dtype=torch.float64)).requires_grad_()
    g = torch.randn(10, len(counts), generator=generator, dtype=torch.float64)
    levels = torch.tensor(counts)
    (actual,) = torch.autograd.grad(round_levels(z, counts, slope)[0], z, g)
    (expected,) = torch.autograd.grad(bound_levels(z, levels, slope), z, g)
    torch.testing.assert_close(actual, expected)  # float64's default: 1e-7 relative, 1e-7 absolute


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 1e30, -1e30])
def test_any_value_gives_an_index_in_range(value: float) -> None:
    z = torch.full((3, 5), value)
    _, indices = round_levels(z, [8, 2, 2**24, 2**24, 5], 1.0)
    assert ((indices >= 0) & (indices < 8 * 2 * 2**48 * 5)).all()


def test_a_codebook_of_2_to_the_63() -> None:
    levels = torch.full((63,), 2)
    codes, indices = round_levels(torch.full((1, 63), 5.0), [2] * 63, 1.0)
    assert int(indices) == 2**63 - 1
    assert torch.equal(level_values(index_digits(indices, levels), levels, torch.float32), codes)


def test_leading_axes_are_free() -> None:
    z, levels = torch.randn(2, 3, 4), (5, 8, 3, 2)
    codes, indices = round_levels(z, levels)
    assert indices.shape == (2, 3)
    turned = round_levels(z.transpose(0, 1), levels)
    assert torch.equal(turned[0].transpose(0, 1), codes)
    assert round_levels(z[:0], levels)[1].shape == (0, 3)
    assert round_levels(z[0, 0], levels)[1].shape == ()
