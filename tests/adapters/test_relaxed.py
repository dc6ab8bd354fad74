"""Relaxed quantizers plugged in by name go around the stages of a model, which evaluates as without them."""

from typing import Any

import pytest
import torch

from quantizers import ResidualQuantizer, plug_in
from quantizers.composite.relaxed import RelaxedQuantizer
from tests.adapters.models import build

OPTIONS: dict[str, dict[str, Any]] = {
    "bypass": {"quantizer": "ema_vq", "probability": 0.5},
    "interpolated": {"quantizer": "ema_vq", "hardness": 0.5},
}


def relaxed_in(model: torch.nn.Module) -> list[RelaxedQuantizer]:
    return [module for module in model.modules() if isinstance(module, RelaxedQuantizer)]


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("model_name", ["mimi", "encodec"])
def test_they_go_around_all_stages_and_keep_their_codebooks(model_name: str, name: str) -> None:
    torch.manual_seed(0)
    model = build(model_name).eval()
    audio = torch.randn(1, 1, 4096)
    with torch.no_grad():
        expected = model.encode(audio).audio_codes
        plug_in(model, name, keep_codebook=True, **OPTIONS[name])
        assert torch.equal(model.eval().encode(audio).audio_codes, expected)
    found = relaxed_in(model)
    assert found
    for quantizer in found:
        assert isinstance(quantizer.quantizer, ResidualQuantizer)
        assert [type(stage).__name__ for stage in quantizer.stages] == ["EMAVectorQuantizer"] * len(
            quantizer.stages
        )
