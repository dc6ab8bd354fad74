"""Directions of vectors at any scale."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quantizers.kernels.common.vectors import are_finite, normalize
from tests.vectors import finite, vectors


@given(data=st.data(), dim=st.integers(1, 5))
def test_normalize_gives_unit_vectors_at_any_scale(data: st.DataObject, dim: int) -> None:
    x = data.draw(vectors(dim, 5, finite))
    unit = normalize(x)
    nonzero = (x != 0).any(-1)  # denormals too
    norms = torch.linalg.vector_norm(unit.double(), dim=-1)
    # D squares and sums, a root and two divisions, each within one rounding
    tolerance = (dim + 4) * torch.finfo(torch.float32).eps
    assert all(abs(norm - 1) <= tolerance for norm in norms[nonzero].tolist())
    assert (unit[(x == 0).all(-1)] == 0).all()


@given(seed=st.integers(0, 999), scale=st.sampled_from([1e-30, 1e-3, 1.0, 1e30]))
def test_normalize_gradient_is_the_projection(seed: int, scale: float) -> None:
    """(g − x̂(x̂·g)) / ‖x‖, at scales whose squares leave float32."""
    generator = torch.Generator().manual_seed(seed)
    x = (scale * torch.randn(3, 5, generator=generator)).requires_grad_()
    g = torch.randn(3, 5, generator=generator)
    (actual,) = torch.autograd.grad(normalize(x), x, g)
    wide, g64 = x.detach().double(), g.double()
    norm = wide.norm(dim=-1, keepdim=True)
    unit = wide / norm
    expected = (g64 - unit * (unit * g64).sum(-1, keepdim=True)) / norm
    bound = 16 * torch.finfo(torch.float32).eps * (g64.norm(dim=-1, keepdim=True) / norm)
    assert ((actual.double() - expected).abs() <= bound).all()


def test_normalize_passes_the_gradient_of_a_zero_vector() -> None:
    x = torch.zeros(2, 3, requires_grad=True)
    g = torch.randn(2, 3)
    (gradient,) = torch.autograd.grad(normalize(x), x, g)
    assert torch.equal(gradient, g)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own, when its compiler is imported
@pytest.mark.parametrize("compiles", [False, True])
def test_vectors_that_are_not_finite_are_found(compiles: bool) -> None:
    """Compiled too: there a product with zero, by which eager mode tells, becomes zero."""
    x = torch.randn(7, 5)
    x[1, 2], x[3, 0], x[4, 4] = torch.nan, torch.inf, -torch.inf
    x[5] = torch.finfo(torch.float32).max
    function = torch.compile(are_finite) if compiles else are_finite
    assert function(x).tolist() == [True, False, True, False, False, True, True]
