"""How many kernels a training step launches on a GPU, found without one: those of PyTorch, and of Triton."""

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
    "affine_vq": 29,
    "bernoulli": 71,
    "bsq": 222,
    "bypass": 35,
    "dithered_fsq": 55,
    "diveq": 82,
    "ema_vq": 28,
    "fsp": 55,
    "fsq": 22,
    "gaussian_quant": 91,
    "grouped": 80,
    "gumbel": 31,
    "ibq": 88,
    "interpolated": 35,
    "lattice": 71,
    "lfq": 196,
    "multihead": 33,
    "none": 10,
    "normalized_fsq": 123,
    "nsvq": 76,
    "opq": 97,
    "optvq": 183,
    "parallel": 164,
    "qinco": 104,
    "random_projection": 71,
    "residual": 95,
    "residual_fsq": 151,
    "rotated": 43,
    "rotation_vq": 28,
    "simvq": 28,
    "vq": 27,
    "vqbridge": 44,
}
"""The launches of a forward and a backward. Each costs microseconds of the host's and of the device's time, so a
change that needs more should be worth it. One that needs fewer lowers its number."""


def launches(name: str) -> list[str]:
    """The names of what a training step launches: PyTorch's operations, then Triton's kernels."""
    quantizer = Case(name).build()
    x = torch.randn(300, quantizer.dim, requires_grad=True)
    with (
        mock.patch.object(dispatch, "triton_obstacle", return_value=""),
        mock.patch.object(modes, "_has_mode", return_value=False),  # as if nothing watched
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
