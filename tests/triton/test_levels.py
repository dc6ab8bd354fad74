"""FSQ's levels against equation (1) in float64."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from quantizers.kernels.levels import reference
from quantizers.kernels.levels.bound import bound_levels
from quantizers.kernels.levels.digits import index_digits, level_values
from quantizers.kernels.levels.triton import round_levels, round_levels_backward
from tests.effort import examples
from tests.triton.interpreter import device, runs_kernels

pytestmark = runs_kernels


def assert_rounded(z: Tensor, levels: Tensor, slope: float) -> None:
    codes, index = (result.cpu() for result in round_levels(z.to(device()), levels.to(device()), slope))
    assert codes.dtype == z.dtype
    digits = index_digits(index, levels)
    assert ((digits >= 0) & (digits < levels)).all()
    assert torch.equal(codes, level_values(digits, levels, z.dtype))
    # tanh, its argument (of error a·u, of which tanh' keeps at most ½ u), the product with h' and the difference:
    # eight roundings of a number of at most h'.
    bounded = bound_levels(z.double(), levels, slope) * (levels // 2)
    slack = 8 * torch.finfo(z.dtype).eps * levels / 2
    nearest = (digits - levels // 2 - bounded).abs()
    assert (nearest <= 0.5 + slack).all()


def assert_gradient(gradient: Tensor, z: Tensor, levels: Tensor, slope: float) -> None:
    tensors = [t.to(device()) for t in (gradient, z, levels)]
    result = round_levels_backward(*tensors, slope).cpu()
    assert result.dtype == z.dtype
    expected = reference.round_levels_backward(gradient.double(), z.double(), levels, slope)
    argument = (slope * z.double()).abs().clamp(max=1e6) + 1  # with the shift, which is below 1
    # The exponent −2a has relative error 4 u, hence its exponential 8 u |a|; ten more roundings follow. float64
    # cancels in 1 − tanh², to an absolute 2⁻⁵² of the largest derivative, where the kernel does not.
    relative = (10 + 8 * argument) * torch.finfo(z.dtype).eps
    absolute = 8 * 2.0**-52 * gradient.double().abs() * levels + torch.finfo(z.dtype).tiny
    assert ((result.double() - expected).abs() <= relative * expected.abs() + absolute).all()


@examples(25)
@given(
    seed=st.integers(0, 2**31),
    levels=st.lists(st.integers(2, 1000), min_size=1, max_size=6),
    n=st.sampled_from([1, 3, 300]),
    scale=st.sampled_from([0.1, 1.0, 5.0]),
    slope=st.sampled_from([1.0, 0.8]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_levels(seed: int, levels: list[int], n: int, scale: float, slope: float, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    z, gradient = (scale * torch.randn(n, len(levels), generator=generator, dtype=dtype) for _ in range(2))
    assert_rounded(z, torch.tensor(levels), slope)
    assert_gradient(gradient, z, torch.tensor(levels), slope)


@pytest.mark.parametrize(
    "levels", [[2] * 63, [2**24], [2**21, 2**21, 2**21], [1000] * 6, [3, 2**24, 5, 2**24 - 1, 2]]
)
def test_indices_past_32_bits(levels: list[int]) -> None:
    """Up to a product of 2⁶³, which int64 does not hold."""
    z = 3 * torch.randn(50, len(levels))
    z[0], z[1] = -50, 50  # the first and the last index
    assert_rounded(z, torch.tensor(levels), 1.0)
    index = round_levels(z.to(device()), torch.tensor(levels).to(device()), 1.0)[1]
    product = 1
    for level in levels:
        product *= level
    assert index[:2].tolist() == [0, product - 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_and_broken_values(dtype: torch.dtype) -> None:
    z = torch.tensor([0.0, -0.0, 1e-30, 0.5, -0.5, 20, -100, 1e30, torch.inf, -torch.inf], dtype=dtype)[:, None]
    levels = torch.tensor([5])
    assert_rounded(z, levels, 0.8)
    assert_gradient(torch.ones_like(z), z, levels, 0.8)
    _, index = round_levels(torch.full((3, 1), torch.nan, dtype=dtype).to(device()), levels.to(device()), 1.0)
    assert index.tolist() == [0, 0, 0]


@pytest.mark.parametrize("level", [2, 3, 4, 7, 8])
def test_halves_round_as_in_torch(level: int) -> None:
    """z = 0 is a level exactly, also for even L, where the shift puts it there."""
    _, index = round_levels(torch.zeros(2, 1).to(device()), torch.tensor([level]).to(device()), 1.0)
    assert index.tolist() == reference.round_levels(torch.zeros(2, 1), torch.tensor([level]), 1.0)[1].tolist()


def test_shapes_and_dtypes() -> None:
    z, levels = torch.randn(4, 2, 3).transpose(0, 1), torch.tensor([8, 5, 2])
    assert_rounded(z, levels, 1.0)
    assert_gradient(torch.randn(2, 3, 4).transpose(1, 2), z, levels, 1.0)
    codes, index = round_levels(z[:, :0].to(device()), levels.to(device()), 1.0)
    assert codes.shape == (2, 0, 3)
    assert index.shape == (2, 0)
    assert round_levels_backward(codes, codes, levels.to(device()), 1.0).shape == (2, 0, 3)
    with pytest.raises(TypeError, match=r"z is torch\.float16, expected float32 or float64"):
        round_levels(z.half().to(device()), levels.to(device()), 1.0)
