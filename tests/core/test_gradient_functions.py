"""The gradient functions as laws, tested in float64 where rounding is small."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import quantizers
from quantizers import reflection, rotation, straight_through
from quantizers.core.gradients import SAME_DIRECTION, resolve_gradient
from quantizers.kernels.common.constants import LARGEST_RATIO
from quantizers.kernels.rotation.operation import rotate_grad
from tests.cases import halved, normal
from tests.effort import examples

EPS = torch.finfo(torch.float64).eps
seeds = st.integers(0, 2**31)
dims = st.sampled_from([1, 2, 3, 8, 65])
plane_dims = st.sampled_from([2, 3, 8, 65])  # where opposite vectors are not met by chance


# Straight-through


@given(seed=seeds, dim=dims, dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]))
def test_straight_through_is_the_code_and_passes_the_gradient(seed: int, dim: int, dtype: torch.dtype) -> None:
    z, codes, g = (normal(seed + i, 5, dim, dtype=dtype) for i in range(3))
    z.requires_grad_()
    codes.requires_grad_()
    value = straight_through(z, codes)
    assert torch.equal(value, codes)
    to_z, to_codes = torch.autograd.grad(value, [z, codes], g)
    assert torch.equal(to_z, g)
    assert torch.equal(to_codes, g)


# The rotation trick


def explicit_rotation(z: Tensor, q: Tensor) -> Tensor:
    """R of the paper for two vectors [D], as a matrix."""
    z_unit, q_unit = z / z.norm(), q / q.norm()
    r = (z_unit + q_unit) / (z_unit + q_unit).norm()
    return torch.eye(len(z), dtype=z.dtype) - 2 * torch.outer(r, r) + 2 * torch.outer(q_unit, z_unit)


@given(seed=seeds, dim=plane_dims, ratio=st.sampled_from([0.02, 1.0, 50.0]))
def test_rotation_is_the_explicit_matrix(seed: int, dim: int, ratio: float) -> None:
    z, q, g = (normal(seed + i, dim) for i in range(3))
    q = q / q.norm() * z.norm() * ratio
    matrix = explicit_rotation(z, q)
    scale = q.norm() / z.norm()
    z.requires_grad_()
    (expected,) = torch.autograd.grad(scale * matrix @ z, z, g, retain_graph=True)
    value = rotation(z, q)
    (actual,) = torch.autograd.grad(value, z, g)
    # R is undefined where z and q are opposite; there both sides lose what ẑ + q̂ has lost.
    lost = 1 / float((z / z.norm() + q / q.norm()).norm().detach())
    tolerance = 32 * dim * EPS * float(scale * g.norm()) * lost
    assert (actual - expected).norm() <= tolerance
    assert torch.equal(value, q)
    assert (scale * matrix @ z - q).norm() <= 32 * dim * EPS * float(q.norm()) * lost  # R maps z to q


@given(
    seed=seeds,
    dim=dims,
    towards=st.sampled_from([1.0, -1.0]),
    log_gap=st.floats(-20, 0),
    log_ratio=st.floats(-40, 40),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
@examples(300)
def test_rotation_keeps_length_everywhere(
    seed: int, dim: int, towards: float, log_gap: float, log_ratio: float, dtype: torch.dtype
) -> None:
    """‖backward‖ = λ‖g‖ with λ = ‖q‖/‖z‖ clamped, also beside q = ±z, however small either is: R is orthogonal.

    The tolerance is √ε of float64: what is lost where R's formula changes over to the reflection.
    """
    z, other, g = (normal(seed + i, dim, dtype=dtype) for i in range(3))
    q = (towards * z + 10**log_gap * other) * 10 ** (log_ratio / 2)
    z = z * 10 ** (-log_ratio / 2)
    norms = torch.stack([z.double().norm(), q.double().norm()])
    result = rotate_grad(g, z, q).double()
    assert result.isfinite().all()
    ratio = (norms[1] / norms[0]).clamp(1 / LARGEST_RATIO, LARGEST_RATIO) if (norms > 0).all() else 1.0
    expected = float(ratio * g.double().norm())
    tolerance = 4 * math.sqrt(EPS) + 4 * torch.finfo(dtype).eps
    assert abs(float(result.norm()) - expected) <= tolerance * expected


@given(seed=seeds, dim=dims, factor=st.sampled_from([1.0, 0.5, 3.0]))
def test_rotation_of_opposite_vectors_is_the_reflection(seed: int, dim: int, factor: float) -> None:
    z, g = normal(seed, dim), normal(seed + 1, dim)
    unit = z / z.norm()
    expected = factor * (g - 2 * unit * (unit @ g))
    assert (rotate_grad(g, z, -factor * z) - expected).norm() <= 16 * dim * EPS * float(g.norm()) * factor


@pytest.mark.parametrize(("z_scale", "q_scale"), [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0)])
def test_rotation_without_a_direction_is_straight_through(z_scale: float, q_scale: float) -> None:
    z, q, g = z_scale * normal(0, 4, 3), q_scale * normal(1, 4, 3), normal(2, 4, 3)
    assert torch.equal(rotate_grad(g, z, q), g)


@given(seed=seeds, dim=plane_dims)
def test_rotation_leaves_what_is_across_its_plane(seed: int, dim: int) -> None:
    """A gradient orthogonal to z and q is scaled, not turned."""
    z, q, g = (normal(seed + i, dim) for i in range(3))
    basis = torch.linalg.qr(torch.stack([z, q], 1)).Q
    across = g - basis @ (basis.T @ g)
    lost = 1 / float((z / z.norm() + q / q.norm()).norm())
    scale = (q.norm() / z.norm()).clamp(1 / LARGEST_RATIO, LARGEST_RATIO)
    gap = (rotate_grad(across, z, q) - scale * across).norm()
    assert gap <= 64 * dim * EPS * lost * float(scale * g.norm())


def test_rotation_gives_the_code_the_plain_gradient() -> None:
    z, q, g = normal(0, 4, 3), normal(1, 4, 3).requires_grad_(), normal(2, 4, 3)
    (to_codes,) = torch.autograd.grad(rotation(z, q), q, g)
    assert torch.equal(to_codes, g)


# The reflection


def reflected(z: Tensor, q: Tensor, g: Tensor) -> Tensor:
    """What z gets; the value and the code's gradient are looked at on the way."""
    inputs = [z.clone().requires_grad_(), q.clone().requires_grad_()]
    value = reflection(*inputs)
    assert torch.equal(value, q)
    to_z, to_codes = torch.autograd.grad(value, inputs, g)
    assert torch.equal(to_codes, g)
    return to_z


@given(seed=seeds, dim=plane_dims, ratio=st.sampled_from([0.02, 1.0, 50.0]))
@examples(20)
def test_reflection_is_the_explicit_matrix(seed: int, dim: int, ratio: float) -> None:
    """Where it is not the rotation, and takes z to its code as that does."""
    z, q, g = (normal(seed + i, dim) for i in range(3))
    q = q / q.norm() * z.norm() * ratio
    gap = z / z.norm() - q / q.norm()
    v = gap / gap.norm()
    matrix = ratio * (torch.eye(dim, dtype=z.dtype) - 2 * torch.outer(v, v))
    # v loses what the difference of unit vectors has lost; a product of D terms rounds D times.
    tolerance = 32 * dim * EPS / float(gap.norm())
    assert (reflected(z, q, g) - matrix.T @ g).norm() <= tolerance * float(ratio * g.norm())
    assert (matrix @ z - q).norm() <= tolerance * float(q.norm())
    assert (matrix - ratio * explicit_rotation(z, q)).norm() > 1.9 * ratio  # a determinant of −1, not of 1


@given(
    seed=seeds,
    dim=dims,
    towards=st.sampled_from([1.0, -1.0]),
    log_gap=st.floats(-20, 0),
    log_ratio=st.floats(-60, 60),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
@examples(100)
def test_reflection_keeps_length_everywhere(
    seed: int, dim: int, towards: float, log_gap: float, log_ratio: float, dtype: torch.dtype
) -> None:
    """‖backward‖ = λ‖g‖ with λ clamped, also beside q = ±z and at any scale: H is orthogonal for any unit v."""
    z, other, g = (normal(seed + i, dim, dtype=dtype) for i in range(3))
    q = (towards * z + 10**log_gap * other) * 10 ** (log_ratio / 2)
    z = z * 10 ** (-log_ratio / 2)
    norms = torch.stack([z.double().norm(), q.double().norm()])
    ratio = (norms[1] / norms[0]).clamp(1 / LARGEST_RATIO, LARGEST_RATIO) if (norms > 0).all() else 1.0
    expected = float(ratio * g.double().norm())
    # v is of unit length within D + 4 roundings, twice in a square, and the result rounds once to its dtype.
    tolerance = 16 * (dim + 4) * EPS + 2 * torch.finfo(dtype).eps
    assert abs(float(reflected(z, q, g).double().norm()) - expected) <= tolerance * expected


@given(seed=seeds, dim=dims, log_scale=st.sampled_from([-200, 0, 200]))
@examples(20)
def test_reflection_is_its_own_inverse(seed: int, dim: int, log_scale: int) -> None:
    """H H = I, at scales whose squares leave float64; and H is the same from the code to the vector."""
    z, q, g = (normal(seed + i, dim) for i in range(3))
    q = 10.0**log_scale * q / q.norm()
    z = 10.0**log_scale * z / z.norm()
    once = reflected(z, q, g)
    tolerance = 32 * (dim + 4) * EPS * float(g.norm())
    assert (reflected(z, q, once) - g).norm() <= tolerance
    lost = 1 + 1 / max(float((z - q).norm() / 10.0**log_scale), SAME_DIRECTION)
    assert (reflected(q, z, once) - g).norm() <= tolerance * lost


def test_reflection_without_a_direction_to_reflect_along() -> None:
    """Zero vectors: straight-through. One direction, though float32 rounds it: λ g. Opposite ones: along z."""
    z, g = normal(0, 20, 3, dtype=torch.float32), normal(1, 20, 3, dtype=torch.float32)
    zero = torch.zeros_like(z)
    for a, b in ((z, zero), (zero, z), (zero, zero)):
        assert torch.equal(reflected(a, b, g), g)
    third = z / 3
    assert not torch.equal(third.double() * 3, z.double())
    torch.testing.assert_close(reflected(z, third, g), g / 3)
    unit = z / z.norm(dim=-1, keepdim=True)
    along = g - 2 * unit * (unit * g).sum(-1, keepdim=True)
    torch.testing.assert_close(reflected(z, -2 * z, g), 2 * along, rtol=1e-5, atol=1e-5)  # of float32's roundings


def test_reflection_has_a_name() -> None:
    z = normal(0, 6, 4, dtype=torch.float32).requires_grad_()
    quantizer = quantizers.VectorQuantizer(4, 8, gradient="reflection")
    out = quantizer(z)
    g = normal(1, 6, 4, dtype=torch.float32)
    (actual,) = torch.autograd.grad(out.quantized, z, g)
    assert torch.equal(actual, reflected(z.detach(), out.quantized.detach(), g))


# A user's own


def test_own_function_keeps_the_exact_value() -> None:
    z, q, g = normal(0, 4, 3).requires_grad_(), normal(1, 4, 3), normal(2, 4, 3)
    value = resolve_gradient(halved)(z, q)
    assert torch.equal(value, q)
    assert torch.equal(torch.autograd.grad(value, z, g)[0], g / 2)


def test_own_function_of_another_shape_is_named() -> None:
    with pytest.raises(ValueError, match=r"gradient function returned shape \(4,\), expected x's \(4, 3\)"):
        resolve_gradient(lambda z, codes: z.sum(-1))(normal(0, 4, 3), normal(1, 4, 3))


def test_unknown_gradient_is_named() -> None:
    with pytest.raises(ValueError, match=r"gradient is 'rotate', expected one of .*'rotation'"):
        quantizers.VectorQuantizer(4, 8, gradient="rotate")
