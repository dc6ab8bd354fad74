"""The lookup's gradients against the reference."""

import pytest
import torch

from quantizers.kernels.nearest import reference
from quantizers.kernels.nearest.triton.lookup_gradient import lookup_codebook_gradient, lookup_vector_gradient
from tests.triton.interpreter import device, runs_kernels

pytestmark = runs_kernels


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 5, 3), (1, 70, 33), (1, 0, 3)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("with_codes_gradient", [False, True])
def test_against_the_reference(shape: tuple[int, int, int], dtype: torch.dtype, with_codes_gradient: bool) -> None:
    heads, n, _ = shape
    wide = torch.promote_types(dtype, torch.float32)
    x, codes = torch.randn(shape).to(dtype), torch.randn(shape).to(wide)
    indices = torch.randint(-1, 4, (heads, n))
    x[indices < 0] = torch.nan  # a vector without a code gives nothing
    loss_gradient = torch.rand(heads, n).to(wide)
    codes_gradient = torch.randn(shape).to(wide) if with_codes_gradient else None
    arguments = [tensor.to(device()) for tensor in (loss_gradient, x, codes, indices)]
    on_device = None if codes_gradient is None else codes_gradient.to(device())

    # A difference, two products and a sum, each within one rounding of values below `largest`; sums of up to n.
    largest = 2 * float((loss_gradient.amax() if n else 0) * 2 * (x.nan_to_num().abs().amax() + 5 if n else 0)) + 5
    bound = 8 * torch.finfo(wide).eps * largest
    actual = lookup_vector_gradient(*arguments, 0.25).cpu()
    expected = reference.lookup_vector_gradient(loss_gradient, x, codes, indices, 0.25)
    assert actual.dtype == dtype
    assert ((actual - expected).abs() <= bound + torch.finfo(dtype).eps * expected.abs()).all()

    actual = lookup_codebook_gradient(on_device, *arguments, 0.25, 4).cpu()
    expected = reference.lookup_codebook_gradient(codes_gradient, loss_gradient, x, codes, indices, 0.25, 4)
    assert actual.dtype == wide
    assert ((actual - expected).abs() <= max(1, n) * bound).all()
