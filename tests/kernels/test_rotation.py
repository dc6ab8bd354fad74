"""The rotation trick's backward against its definition, and where the definition ends."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from quantizers.kernels.common.constants import LARGEST_RATIO
from quantizers.kernels.rotation.operation import rotate_grad
from tests.vectors import finite, vectors

pytestmark = pytest.mark.usefixtures("implementation")

EPS = torch.finfo(torch.float32).eps


def matrix_form(g: Tensor, x: Tensor, q: Tensor) -> Tensor:
    """λ Rᵀ g with the matrix R of equation (2), in float64, a row at a time."""
    rows = []
    for gradient, vector, code in zip(g.double(), x.double(), q.double(), strict=True):
        x_unit, q_unit = vector / vector.norm(), code / code.norm()
        w = (x_unit + q_unit) / (x_unit + q_unit).norm()
        rotation = torch.eye(len(vector)) - 2 * torch.outer(w, w) + 2 * torch.outer(q_unit, x_unit)
        ratio = (code.norm() / vector.norm()).clamp(1 / LARGEST_RATIO, LARGEST_RATIO)
        rows.append(ratio * rotation.T @ gradient)
    return torch.stack(rows)


@given(seed=st.integers(0, 2**31), dim=st.integers(1, 40), scale=st.sampled_from([1e-25, 1e-3, 1.0, 1e3, 1e25]))
def test_is_the_matrix_form(seed: int, dim: int, scale: float) -> None:
    """At scales whose squares leave float32; λ is clamped for two of them."""
    generator = torch.Generator().manual_seed(seed)
    g, x, q = (torch.randn(5, dim, generator=generator) for _ in range(3))
    expected = matrix_form(g, scale * x, q)
    # float64 within: what is left is the rounding of the result, and, when x̂ + q̂ is short, √u of float64
    bound = expected.norm(dim=-1, keepdim=True) * (EPS + 2.0**-20 * (dim == 1))
    assert ((rotate_grad(g, scale * x, q) - expected).abs() <= bound).all() or dim == 1


@given(data=st.data(), dim=st.integers(1, 4))
def test_norm_is_bounded_for_any_vectors(data: st.DataObject, dim: int) -> None:
    """‖result‖ = λ‖g‖ with λ clamped, also for denormals, opposite vectors and float32's largest."""
    x, q = (data.draw(vectors(dim, 1, finite)) for _ in range(2))
    g = torch.ones(1, dim)
    norm = rotate_grad(g, x, q).double().norm()
    straight = (x == 0).all() or (q == 0).all()
    ratio = 1.0 if straight else (q.double().norm() / x.double().norm()).clamp(1 / LARGEST_RATIO, LARGEST_RATIO)
    # Near q = −x the rotation is off by √u of float64; the result is rounded once.
    assert abs(norm - ratio * g.norm()) <= (2.0**-24 + EPS) * ratio * g.norm() + 2.0**-126


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_degenerate_vectors(dtype: torch.dtype) -> None:
    g = torch.randn(3, 4).to(dtype)
    x = torch.tensor([[0, 0, 0, 0], [1, 2, 3, 4], [1, 2, 3, 4]]).to(dtype)
    q = torch.tensor([[1, 2, 3, 4], [0, 0, 0, 0], [-1, -2, -3, -4]]).to(dtype)
    result = rotate_grad(g, x, q)
    assert result.dtype == dtype
    assert torch.equal(result[:2], g[:2])  # no direction: straight-through
    unit = x[2].double() / x[2].double().norm()
    reflected = g[2].double() - 2 * unit * (unit @ g[2].double())
    torch.testing.assert_close(result[2].double(), reflected, rtol=0, atol=float(8 * torch.finfo(dtype).eps))


def test_leading_axes_are_free() -> None:
    g, x, q = (torch.randn(2, 3, 5) for _ in range(3))
    flat = rotate_grad(g.view(6, 5), x.view(6, 5), q.view(6, 5))
    assert torch.equal(rotate_grad(g, x, q).view(6, 5), flat)
    assert torch.equal(rotate_grad(g[0, 0], x[0, 0], q[0, 0]), flat[0])
    assert rotate_grad(g[:0], x[:0], q[:0]).shape == (0, 3, 5)
    transposed = [tensor.transpose(0, 1) for tensor in (g, x, q)]
    assert torch.equal(rotate_grad(*transposed), rotate_grad(g, x, q).transpose(0, 1))
