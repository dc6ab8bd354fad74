"""Every quantizer computes there what it computes on a CPU."""

import copy

import pytest
import torch
from torch import Tensor

from quantizers import Quantizer, QuantizerOutput
from tests.cases import Case, batch, cases_where, every_case, rounding_tolerance, seeded
from tests.devices.emulated import DEVICE

pytestmark = pytest.mark.methods


def on_both(case: Case) -> tuple[Quantizer, Quantizer]:
    """The same quantizer on the CPU and on the device."""
    torch.manual_seed(0)
    quantizer = case.build()
    return quantizer, copy.deepcopy(quantizer).to(DEVICE)


def inputs(scale: float = 1.0, **options: int) -> tuple[Tensor, Tensor]:
    """Leaves with the same values on the CPU and on the device."""
    x = scale * batch(3, 20, **options)
    return x.clone().requires_grad_(), x.to(DEVICE).requires_grad_()


def assert_same(actual: Tensor | None, expected: Tensor | None) -> None:
    """Equal up to what float32 rounds in sums of another order, by PyTorch's own tolerance; indices exactly."""
    assert (actual is None) == (expected is None)
    if actual is None or expected is None:
        return
    assert actual.device == DEVICE
    torch.testing.assert_close(actual.detach().cpu(), expected.detach(), equal_nan=True)


def assert_same_output(actual: QuantizerOutput, expected: QuantizerOutput) -> None:
    for own, other in zip(actual, expected, strict=True):
        assert_same(own, other)


@every_case
def test_two_steps_of_training(case: Case) -> None:
    host, device = on_both(case)
    for step in range(2):
        x_host, x_device = inputs(seed=step)
        outputs = []
        for quantizer, x in ((host, x_host), (device, x_device)):
            out = seeded(quantizer, x, seed=step)
            (out.quantized.square().sum() + out.loss).backward()
            outputs.append(out)
        assert_same_output(outputs[1], outputs[0])
        assert_same(x_device.grad, x_host.grad)
        for own, other in zip(device.parameters(), host.parameters(), strict=True):
            assert_same(own.grad, other.grad)
    for own, other in zip(device.state_dict().values(), host.state_dict().values(), strict=True):
        assert_same(own, other)


@every_case
def test_evaluation(case: Case) -> None:
    host, device = (quantizer.eval() for quantizer in on_both(case))
    x_host, x_device = inputs()
    expected, actual = host(x_host), device(x_device)
    assert_same_output(actual, expected)
    assert_same(device.encode(x_device), expected.indices)
    if case.has_codes:
        decoded = device.decode(actual.indices)
        assert (decoded - actual.quantized).abs().max() <= rounding_tolerance(host)
        assert_same(decoded, host.decode(expected.indices))


@every_case
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_what_does_not_count(case: Case, training: bool) -> None:
    """Masked vectors, and vectors that are not finite."""
    host, device = (quantizer.train(training) for quantizer in on_both(case))
    x_host, x_device = inputs()
    mask = torch.arange(60).view(3, 20) % 3 > 0
    with torch.no_grad():
        x_host[0, :4] = torch.nan
        x_device[0, :4] = torch.nan
    expected = seeded(host, x_host, mask)
    actual = seeded(device, x_device, mask.to(DEVICE))
    assert_same_output(actual, expected)


@cases_where(lambda case: case.foundation)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision(case: Case, dtype: torch.dtype) -> None:
    host, device = on_both(case)
    x = batch(30, dtype=dtype)
    expected, actual = seeded(host, x), seeded(device, x.to(DEVICE))
    assert actual.quantized.dtype == dtype
    assert_same(actual.indices, expected.indices)


@every_case
def test_built_on_the_device(case: Case) -> None:
    with torch.device(DEVICE):
        quantizer = case.build().to(DEVICE)  # a module among the options may have been built elsewhere
    out = quantizer(batch(2, 10).to(DEVICE))
    assert out.quantized.device == DEVICE
