"""Rows that count and rows that do not, bit for bit as in PyTorch's operations; a mean up to its rounding."""

import pytest
import torch
from torch import Tensor

from quantizers.kernels.common.dispatch import use_implementation
from quantizers.kernels.rows import reference
from quantizers.kernels.rows import triton as kernels
from quantizers.kernels.rows.operation import finite_rows, marked_rows, mean_loss
from tests.triton.interpreter import device, runs_kernels

pytestmark = runs_kernels

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
SHAPES = [(0, 3), (1, 1), (70, 5), (3, 1030)]  # the last one is wider than a tile


def draw(n: int, d: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Rows of which some hold NaN or an infinity, and some negative zeros."""
    x = torch.randn(n, d).to(dtype)
    for row, value in enumerate((torch.nan, torch.inf, -torch.inf)):
        x[row + 2 :: 9, row % d] = value
    x[1::9] = -0.0
    return x


def assert_same(actual: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for a, b in zip(actual, expected, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert torch.equal(a.cpu().nan_to_num(7.0), b.cpu().nan_to_num(7.0))
        if b.is_floating_point():
            assert torch.equal(a.cpu().isnan(), b.cpu().isnan())
            assert torch.equal(a.cpu().signbit() & ~a.cpu().isnan(), b.cpu().signbit() & ~b.cpu().isnan())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_finite_rows(shape: tuple[int, int], dtype: torch.dtype) -> None:
    x, mask = draw(*shape, dtype).to(device()), (torch.rand(shape[0]) > 0.3).to(device())
    assert_same(kernels.finite_rows(x, None), reference.finite_rows(x, None))
    assert_same(kernels.finite_rows(x, mask), reference.finite_rows(x, mask))


@pytest.mark.parametrize("columns", [None, 1, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_marked_rows(shape: tuple[int, int], columns: int | None) -> None:
    codes, valid = draw(*shape).to(device()), (torch.rand(shape[0]) > 0.3).to(device())
    chosen = torch.randint(2**40, (shape[0],) if columns is None else (shape[0], columns)).to(device())
    assert_same(kernels.marked_rows(codes, chosen, valid), reference.marked_rows(codes, chosen, valid))


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_of_rows_of_any_strides(dtype: torch.dtype) -> None:
    valid = (torch.rand(70) > 0.3).to(device())
    for gradient in (draw(70, 5), draw(5, 70).T, torch.ones(()).expand(70, 5)):
        gradient = gradient.to(dtype).float().to(device())  # Triton's interpreter does not round to 16 bits
        actual = kernels.rows_gradient(gradient, valid, dtype)
        assert_same((actual,), (reference.rows_gradient(gradient, valid, dtype),))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("heads", [(), (1,), (3,)])
@pytest.mark.parametrize("n", [0, 1, 1025, 3000])
def test_mean_loss(n: int, heads: tuple[int, ...], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "MOST_PARTS", 2)  # so that a part has several blocks
    losses, valid = torch.rand(*heads, n, dtype=dtype).to(device()), (torch.rand(n) > 0.3).to(device())
    losses[..., ~valid] = torch.inf
    means, divisor = kernels.mean_loss(losses, valid, 5)
    exact = losses.double().where(valid, 0.0).sum(-1) / (valid.sum().clamp(min=1) * 5)
    eps = torch.finfo(dtype).eps + n * 2.0**-52
    assert means.dtype == dtype
    assert ((means.double() - exact).abs() <= eps * exact).all()
    assert divisor == valid.sum().clamp(min=1) * 5
    gradient = torch.rand(heads, dtype=dtype).to(device())
    actual = kernels.mean_loss_gradient(gradient, valid, divisor)
    torch.testing.assert_close(actual, reference.mean_loss_gradient(gradient, valid, divisor), rtol=eps, atol=0)


def step(x: Tensor, mask: Tensor, codes: Tensor) -> list[Tensor]:
    """Outputs and gradients of the three together, and a second derivative."""
    vectors, valid = finite_rows(x, mask)
    quantized, indices = marked_rows(vectors * codes, valid.long(), valid)
    loss = mean_loss((vectors - codes).square().sum(-1), valid, 5)
    gradients = torch.autograd.grad(quantized.square().nan_to_num().sum() + loss, [x, codes], create_graph=True)
    second = torch.autograd.grad(gradients[0].square().sum(), [x, codes])
    return [vectors, valid, quantized, indices, loss, *gradients, *second]


def test_derivatives_are_those_of_the_reference() -> None:
    x, codes = draw(70, 5).to(device()).requires_grad_(), torch.randn(70, 5).to(device()).requires_grad_()
    mask = (torch.rand(70) > 0.3).to(device())
    with use_implementation("triton"):
        actual = step(x, mask, codes)
    with use_implementation("reference"):
        expected = step(x, mask, codes)
    torch.testing.assert_close(actual, expected, equal_nan=True)
