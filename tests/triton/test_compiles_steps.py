"""How many kernels a training step launches on a GPU, found without one: PyTorch's operations and Triton's kernels."""

import contextlib
from unittest import mock

import pytest
import torch

from quantizers.kernels.common import dispatch, modes
from quantizers.kernels.common.dispatch import use_implementation
from tests.cases import NAMES, Case
from tests.triton.interpreter import compiles_kernels
from tests.triton.variants import TorchKernels, recorded_launches

pytestmark = compiles_kernels

MOST = {
    "affine_vq": 47,
    "bernoulli": 80,
    "bsq": 168,
    "diveq": 100,
    "ema_vq": 78,
    "fsp": 64,
    "fsq": 31,
    "grouped": 115,
    "gumbel": 35,
    "ibq": 103,
    "lfq": 142,
    "multihead": 51,
    "none": 19,
    "nsvq": 94,
    "optvq": 199,
    "qinco": 113,
    "random_projection": 74,
    "residual": 130,
    "residual_fsq": 168,
    "rotation_vq": 46,
    "simvq": 46,
    "vq": 45,
    "vqbridge": 62,
}
"""The launches of a forward and a backward. Each costs microseconds of the host's and the device's time, so a change
that needs more should be worth it; one that needs fewer may lower its number."""


def launches(name: str) -> list[str]:
    """The names of what a training step launches: PyTorch's operations, then Triton's kernels."""
    quantizer = Case(name).build()
    x = torch.randn(300, quantizer.dim, requires_grad=True)
    with (
        mock.patch.object(dispatch, "_triton_obstacle", lambda device: ""),
        mock.patch.object(dispatch, "_current_device", lambda *_: contextlib.nullcontext()),
        mock.patch.object(modes, "_has_dispatch_mode", lambda: False),  # as if nothing watched
        use_implementation("triton"),
        recorded_launches() as kernels,
    ):
        for _ in range(2):  # the first step allocates what persists between steps
            kernels.clear()
            with TorchKernels() as operations:
                out = quantizer(x)
                torch.autograd.grad(out.quantized.sum() + out.loss, x)
    return operations.names + [kernel.name for kernel in kernels]


@pytest.mark.parametrize("name", MOST)
def test_a_step_launches_no_more_than_it_did(name: str) -> None:
    found = launches(name)
    assert len(found) <= MOST[name], sorted(found)


def test_every_method_has_a_number() -> None:
    assert list(MOST) == NAMES
