"""The stand-in refuses what mps refuses."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from quantizers.kernels.common.wide import has_float64, narrowed, wide, wide_device
from tests.devices.emulated import DEVICE, EmulatedTensor

REFUSED: dict[str, Callable[[Tensor], object]] = {
    "a cast to float64": lambda x: x.double(),
    "a sum in float64": lambda x: x.sum(dtype=torch.float64),
    "a factory of float64": lambda x: torch.zeros(3, dtype=torch.float64, device=DEVICE),
    "two devices": lambda x: x + torch.ones(3),
    "a transfer to float64 in one step": lambda x: x.to("cpu", torch.float64),
    "a transfer from float64 in one step": lambda x: x.cpu().double().to(DEVICE, torch.float32),
    "an index on the device of a tensor on the CPU": lambda x: torch.ones(3)[x.long()],
    "an operator that mps lacks": lambda x: torch.frexp(x),
    "a decomposition that mps lacks": lambda x: torch.linalg.svd(x[None]),
    "a generator of the CPU": lambda x: torch.rand(3, generator=torch.Generator(), device=DEVICE),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refuses(what: str) -> None:
    with pytest.raises((TypeError, RuntimeError)):
        REFUSED[what](torch.zeros(3, device=DEVICE))


def test_computes() -> None:
    x = torch.randn(4, 3, device=DEVICE)
    assert isinstance(x, EmulatedTensor)
    assert x.device == DEVICE
    assert torch.equal((x @ x.T).cpu(), x.cpu() @ x.cpu().T)
    assert torch.equal(x[x > 0].cpu(), x.cpu()[x.cpu() > 0])


def test_has_no_float64() -> None:
    """The library finds out by itself."""
    assert not has_float64(DEVICE)
    assert not has_float64(torch.device("mps"))
    assert wide_device(DEVICE) == torch.device("cpu")


def test_arithmetic_in_float64_returns_to_the_device() -> None:
    x = torch.randn(5, device=DEVICE, requires_grad=True)
    third = narrowed(wide(x) / 3, torch.float32, DEVICE)
    assert third.device == DEVICE
    third.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad.cpu(), torch.full((5,), 1 / 3))
