"""Quantizers of older versions of the package, read as those of the current one."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from quantizers.adapters.contracts.vector_quantize_pytorch.common import PackageAdapter

_OF_STATE = MappingProxyType({"affine_param": False, "vq_bridge": None, "gumbel_sample": None, "ema_update": True})
_OF_STAGE = MappingProxyType(
    {
        "accept_3d_fmap": False,
        "codebook_diversity_loss_weight": 0.0,
        "commitment_use_cross_entropy_loss": False,
        "directional_reparam": False,
        "freeze_codebook": False,
        "in_place_codebook_optimizer": None,
        "rotation_trick": False,
        "sync_update_v": 0.0,
    }
)
_OF_STAGES = MappingProxyType(
    {"diveq": False, "eval_beam_size": None, "implicit_neural_codebook": False, "uniform_codebook_size": True}
)
"""What options that came with later versions are without them."""


class _View:
    """A module with attributes of its own, and with others for those that the module lacks."""

    def __init__(self, module: Any, own: Mapping[str, Any], others: Mapping[str, Any]) -> None:
        vars(self).update(own, _module=module, _others=others)

    def __getattr__(self, name: str) -> Any:
        others = vars(self)["_others"]
        return (
            getattr(vars(self)["_module"], name, others[name]) if name in others else getattr(self._module, name)
        )


def _viewed(module: Any, others: Mapping[str, Any], **own: Any) -> Any:
    """A view of a module, whose class has the name of the module's."""
    return type(type(module).__name__, (_View,), {})(module, own, others)


def stage_of_older(original: Any) -> Any:
    """A VectorQuantize of an older version, with what is read from a current one.

    Raises: AttributeError for another class; TypeError for a current version.
    """
    if hasattr(original, "directional_reparam"):
        raise TypeError("it has directional_reparam, which came with later versions")
    state = original._codebook
    return _viewed(
        original,
        _OF_STAGE,
        use_cosine_sim=type(state).__name__ == "CosineSimCodebook",
        _codebook=_viewed(state, _OF_STATE),
    )


def stages_of_older(original: Any) -> Any:
    """A ResidualVQ of an older version, with what is read from a current one.

    Raises: AttributeError for another class; TypeError for a current version.
    """
    if hasattr(original, "beam_score_weights"):
        raise TypeError("it has beam_score_weights, which came with later versions")
    layers = [stage_of_older(layer) for layer in original.layers]
    tables = {id(layer._codebook) for layer in original.layers}
    return _viewed(
        original,
        _OF_STAGES,
        layers=layers,
        has_projections=isinstance(original.project_in, nn.Linear),
        codebook_dim=layers[0]._codebook.embed.shape[-1],
        codebook_sizes=tuple(layer.codebook_size for layer in layers),
        beam_score_weights=torch.ones(len(layers)),
        shared_codebook=len(tables) < len(layers),
    )


def restore_masked_of_older(
    adapter: PackageAdapter, original: Any, quantized: Tensor, x: Tensor, mask: Tensor | None
) -> Tensor:
    """`quantized`, with x itself at masked positions: what versions did before it became an option.

    Args: original: the module, or its first stage.
    """
    if mask is None or hasattr(original, "return_zeros_for_masked_padding"):
        return quantized
    return quantized.where(mask.unsqueeze(adapter.quantizer.channel_dim), x)
