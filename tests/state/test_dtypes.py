"""State is float32, whoever builds a quantizer, casts it, or fills it."""

import pytest
import torch
from torch import nn

from quantizers import MultiScaleQuantizer, Quantizer, SimVQ, VectorQuantizer
from tests.cases import Case, assert_same_state, batch, every_case, seeded, state_of
from tests.default_dtype import default_dtype

pytestmark = pytest.mark.methods

halves = pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)


def built_under(case: Case, dtype: torch.dtype) -> Quantizer:
    torch.manual_seed(0)
    with default_dtype(dtype):
        quantizer = case.build()
        assert torch.get_default_dtype() == dtype
    return quantizer


def fill_with(module: nn.Module, dtype: torch.dtype) -> None:
    """As loaders do that set tensors one by one, and as `param.data = ...` does."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(dtype)


@every_case
@halves
def test_built_under_half_precision(case: Case, half: torch.dtype) -> None:
    """The same draws, in float32: also those of modules that the caller passes in."""
    assert_same_state(state_of(built_under(case, half)), state_of(built_under(case, torch.float32)))


@every_case
@pytest.mark.parametrize(("half", "training"), [(torch.bfloat16, True), (torch.float16, False)], ids=str)
def test_filled_with_half_precision(case: Case, half: torch.dtype, training: bool) -> None:
    quantizer = case.build()
    expected = {
        name: value.to(half).to(value.dtype) if value.is_floating_point() else value
        for name, value in state_of(quantizer).items()
    }
    fill_with(quantizer, half)
    quantizer.train(training)
    assert_same_state(state_of(quantizer), expected)
    out = seeded(quantizer, batch(20).requires_grad_())
    if training:
        (out.quantized.sum() + out.loss).backward()


@every_case
def test_assigned_from_a_checkpoint_of_half_precision(case: Case) -> None:
    quantizer, other = case.build(), case.build()
    fill_with(other, torch.bfloat16)
    quantizer.load_state_dict(other.state_dict(), assign=True)
    assert not any(t.is_floating_point() and t.dtype.itemsize < 4 for t in state_of(quantizer).values())


def test_a_map_of_the_callers_is_float32_too() -> None:
    quantizer = SimVQ(4, 8, transform=nn.Linear(4, 4).bfloat16())
    assert quantizer.transform.weight.dtype == torch.float32
    blend = nn.Conv2d(4, 4, 1).bfloat16()
    pyramid = MultiScaleQuantizer(4, [VectorQuantizer(4, 8)] * 2, scales=(0.5, 1), axes=2, blends=[blend])
    assert blend.weight.dtype == torch.float32
    assert pyramid(torch.randn(2, 4, 4, 4, dtype=torch.bfloat16)).quantized.dtype == torch.bfloat16


def test_views_of_a_wrappers_buffer_stay_its_views() -> None:
    """As flattened parameters: made float32 here, they would no longer be what the optimizer steps on."""
    quantizer = VectorQuantizer(4, 8)
    flat = torch.zeros(2 * quantizer.embedding.numel(), dtype=torch.bfloat16)
    quantizer.embedding.data = flat[:32].view(8, 4)
    quantizer.train()
    flat.fill_(3)
    assert (quantizer.embedding == 3).all()
