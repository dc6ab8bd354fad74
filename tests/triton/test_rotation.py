"""The rotation's backward against the reference, in its degenerate cases too."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from quantizers.kernels.common.constants import OPPOSITE
from quantizers.kernels.rotation import reference
from quantizers.kernels.rotation.triton import LARGEST_ROW, rotate_grad
from tests.effort import examples
from tests.triton.interpreter import INTERPRETED, device, runs_kernels

pytestmark = runs_kernels


def assert_rotated(gradient: Tensor, x: Tensor, quantized: Tensor) -> None:
    result = rotate_grad(*(t.to(device()) for t in (gradient, x, quantized))).cpu()
    expected = reference.rotate_grad(gradient.double(), x, quantized)
    assert result.dtype == gradient.dtype
    d, u = x.shape[-1], 2.0**-53
    units = [t.double() / t.double().norm(dim=-1, keepdim=True) for t in (x, quantized)]
    middle = (units[0] + units[1]).norm(dim=-1, keepdim=True).nan_to_num(1.0)
    # Norms and dot products of D terms have (D + 8) u, the direction of w that divided by ‖x̂ + q̂‖; where the
    # reflection takes over, by rounding sooner in one than in the other, the two differ by ‖x̂ + q̂‖ itself.
    loss = 8 * (d + 8) * u / middle.clamp(min=OPPOSITE)
    loss = torch.where(middle < 2 * OPPOSITE, loss + 8 * OPPOSITE, loss)
    # λ‖g‖ is the norm of the result.
    bound = loss * expected.norm(dim=-1, keepdim=True)
    # One rounding to the result's dtype; the interpreter cuts bfloat16 off instead.
    cut = 2 if INTERPRETED and gradient.dtype == torch.bfloat16 else 1
    rounding = cut * torch.finfo(gradient.dtype).eps / 2 * expected.abs() + torch.finfo(gradient.dtype).tiny
    assert ((result.double() - expected).abs() <= bound + 2 * rounding).all()


@examples(20)
@given(
    seed=st.integers(0, 2**31),
    d=st.sampled_from([1, 2, 3, 16, 100]),
    n=st.sampled_from([1, 7, 200]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64]),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
)
def test_rotated_gradients(seed: int, d: int, n: int, dtype: torch.dtype, scale: float) -> None:
    """λ clamped and not, at any scale of the code."""
    generator = torch.Generator().manual_seed(seed)
    gradient, x, quantized = (torch.randn(n, d, generator=generator).to(dtype) for _ in range(3))
    assert_rotated(gradient, x, (scale * quantized).to(dtype))


def test_degenerate_vectors() -> None:
    generator = torch.Generator().manual_seed(3)
    gradient, x, quantized = (torch.randn(12, 6, generator=generator) for _ in range(3))
    x[0] = 0
    quantized[1] = 0
    x[2] = quantized[2] = 0
    quantized[3] = -x[3]
    quantized[4] = -2 * x[4]
    quantized[5] = x[5]
    for row, step in zip(range(6, 10), (1e-3, 1e-6, 3e-8, 1e-9), strict=True):
        quantized[row] = -x[row]
        quantized[row, 0] += step
    x[10] *= 1e-38  # denormals
    x[11] *= 1e38
    assert_rotated(gradient, x, quantized)
    straight = rotate_grad(*(t.to(device()) for t in (gradient, x, quantized))).cpu()[:3]
    assert torch.equal(straight, gradient[:3])


@pytest.mark.parametrize("d", [1024, LARGEST_ROW, LARGEST_ROW + 1, 2 * LARGEST_ROW + 5])
def test_wide_vectors(d: int) -> None:
    """Beyond LARGEST_ROW channels the kernel loops over them."""
    gradient, x, quantized = torch.randn(3, d), torch.randn(3, d), torch.randn(3, d)
    quantized[1] = -x[1]
    x[2] = 0
    assert_rotated(gradient, x, quantized)


def test_shapes_strides_and_mixed_dtypes() -> None:
    gradient = torch.randn(4, 2, 3).bfloat16().transpose(0, 1)
    x, quantized = torch.randn(2, 4, 3), torch.randn(2, 3, 4).transpose(1, 2)
    assert_rotated(gradient, x, quantized)
    assert rotate_grad(*(t.to(device())[:, :0] for t in (gradient, x, quantized))).shape == (2, 0, 3)
