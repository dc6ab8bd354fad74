"""Every quantizer, forward and backward, on Triton kernels alone, agreeing with the reference."""

import contextlib

import pytest
import torch
from torch import Tensor

import quantizers
from quantizers.kernels.common.dispatch import OPERATIONS, use_implementation
from tests.cases import CASES, NAMES, Case, every_case
from tests.synchronisation import no_reading
from tests.triton.interpreter import device, runs_kernels

pytestmark = runs_kernels


def step(case: Case, implementation: str) -> tuple[list[Tensor], set[tuple[str, str]]]:
    """A training step's outputs and gradients, its final state and indices, and (operation, implementation)
    pairs."""
    torch.manual_seed(1)
    quantizer = case.build().to(device())
    x = torch.randn(2, 9, quantizer.dim).to(device()).requires_grad_()
    torch.manual_seed(2)
    with use_implementation(implementation) as counts:
        with no_reading() if implementation == "triton" else contextlib.nullcontext():
            out = quantizer(x)
            (out.quantized.sin().sum() + out.loss).backward()
        found = [x.grad, *(p.grad for p in quantizer.parameters()), *quantizer.state_dict().values()]
        found += [*out, quantizer.eval().encode(x)]
    return [tensor.detach().cpu() for tensor in found if tensor is not None], set(counts)


def temperatures(quantizer: quantizers.Quantizer) -> list[float]:
    """The temperatures of the regularizers of a quantizer and of what it is made of."""
    held = [regularizer for part in quantizer.modules() for regularizer in getattr(part, "regularizers", ())]
    return [regularizer.temperature for regularizer in held if hasattr(regularizer, "temperature")]


@pytest.mark.foundations
@every_case
def test_agrees_with_the_reference(case: Case) -> None:
    actual, executed = step(case, "triton")
    expected, in_reference = step(case, "reference")
    assert {name for operation, name in executed if OPERATIONS[operation].import_triton} <= {"triton"}
    assert {operation for operation, _ in executed} == {operation for operation, _ in in_reference}
    # float32's default, 1.3e-6 relative and 1e-5 absolute: a handful of roundings of numbers near 1. A softmax at
    # a temperature below 1 divides the roundings of its logits by it.
    coldest = min([1.0, *temperatures(case.build())])
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1.3e-6 / coldest, atol=1e-5 / coldest)


def test_every_registered_quantizer_is_a_case() -> None:
    assert {case.name for case in CASES} == set(NAMES)
