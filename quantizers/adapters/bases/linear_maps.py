"""Weights of a model's linear maps and convolutions of one step, with and without weight norm."""

from typing import Any

import torch
from torch import Tensor, nn

from quantizers.core.base import Quantizer


def map_weight(layer: Any) -> Tensor:
    """The weight [out, in] of a linear layer, or of a convolution of one step.

    The older weight norm computes its weight in a forward only, so it is computed here.
    """
    normed = hasattr(layer, "weight_g")
    weight: Tensor = torch._weight_norm(layer.weight_v, layer.weight_g, 0) if normed else layer.weight
    return weight.reshape(weight.shape[:2])


@torch.no_grad()
def copy_maps(quantizer: Quantizer, project_in: Any, project_out: Any) -> None:
    """Copy two maps with biases, or identities, into the projections of a quantizer with codes as wide."""
    for name, layer in (("project_in", project_in), ("project_out", project_out)):
        if not isinstance(layer, nn.Identity):
            own = quantizer.get_submodule(name)
            own.get_parameter("weight").copy_(map_weight(layer))
            own.get_parameter("bias").copy_(layer.bias)
