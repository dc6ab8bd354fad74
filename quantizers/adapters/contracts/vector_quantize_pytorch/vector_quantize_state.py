"""Reads settings and codes of a VectorQuantize of vector-quantize-pytorch, and copies its codes."""

import warnings
from typing import Any

from torch import Tensor

from quantizers.adapters.bases.copying import groups_of, set_averages, set_codebook
from quantizers.adapters.bases.distances import distance_of
from quantizers.adapters.bases.spec import QuantizerSpec, random_vectors
from quantizers.adapters.contracts.vector_quantize_pytorch.common import PackageAdapter, refuse
from quantizers.codebooks.multihead import MultiHeadVectorQuantizer
from quantizers.core.base import Quantizer


def channel_axis(original: Any) -> int:
    """The axis of a VectorQuantize's channels."""
    first = original.accept_image_fmap or original.accept_3d_fmap or not original.channel_last
    return 1 if first else -1


def example_of_maps(original: Any, spec: QuantizerSpec) -> Tensor:
    """Random vectors in the shape that a VectorQuantize takes: those of a sequence, an image or a video."""
    return random_vectors(spec, 2 if original.accept_image_fmap else 3 if original.accept_3d_fmap else 1)


def restore_masked(adapter: PackageAdapter, quantized: Tensor, x: Tensor, mask: Tensor | None) -> Tensor:
    """`quantized`, with x itself at masked positions if the original returns it there."""
    if mask is None or getattr(adapter.original, "return_zeros_for_masked_padding", True):
        return quantized
    return quantized.where(mask.unsqueeze(adapter.quantizer.channel_dim), x)


def vector_quantize_settings(original: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of a VectorQuantize for any new quantizer, and further ones for `keep_codebook`."""
    options = {"distance": "cosine"} if original.use_cosine_sim else {}
    keep_options = {
        "commitment_weight": original.commitment_weight,
        "gradient": "rotation" if original.rotation_trick else "straight_through",
        "decay": original._codebook.decay,
        "epsilon": original._codebook.eps,
    }
    if original._codebook.learnable_codebook:
        keep_options["codebook_weight"] = original.commitment_weight
    return options, keep_options


def warn_of_lost_training(original: Any) -> None:
    """Warn of what a VectorQuantize does in training and a quantizer that keeps its codes does not do."""
    sampling = getattr(original._codebook.gumbel_sample, "keywords", {})
    optimizer = original.in_place_codebook_optimizer
    settings = {
        "stochastic_sample_codes": sampling.get("stochastic"),
        "straight_through": sampling.get("straight_through"),
        "threshold_ema_dead_code": original._codebook.threshold_ema_dead_code,
        "commitment_use_cross_entropy_loss": original.commitment_use_cross_entropy_loss,
        "orthogonal_reg_weight": original.orthogonal_reg_weight,
        "codebook_diversity_loss_weight": original.codebook_diversity_loss_weight,
        "directional_reparam": original.directional_reparam,
        "sync_update_v": original.sync_update_v,
        "in_place_codebook_optimizer": None if optimizer is None else type(optimizer).__name__,
    }
    lost = [f"{name}={value}" for name, value in settings.items() if value]
    if lost:
        warnings.warn(
            f"{type(original).__name__} has {', '.join(lost)}: its codes are kept, but training goes on without "
            "that. See quantizers.DeadCodeReplacement and quantizers.regularizers for alternatives.",
            stacklevel=2,
        )


def is_frozen(original: Any) -> bool:
    """Whether the codes of a VectorQuantize do not move in training."""
    state = original._codebook
    learns = state.learnable_codebook or (state.ema_update and state.decay < 1)
    return bool(original.freeze_codebook or not learns)


def trained_codes(original: Any) -> Tensor:
    """The codes of a VectorQuantize, [K, codebook_dim]; with separate codes per head [heads, K, codebook_dim].

    Raises: ValueError if it searches other codes than it stores, and before its k-means.
    """
    state = original._codebook
    refuse(
        f"{type(original).__name__}, with keep_codebook=True,",
        affine_param=state.affine_param,
        vq_bridge=state.vq_bridge,
    )
    if not state.initted:
        raise ValueError(
            f"{type(original).__name__} has kmeans_init=True and has seen no batch, so it has no codes to keep"
        )
    codes: Tensor = state.embed if len(state.embed) > 1 else state.embed[0]
    return codes


def copy_heads(original: Any, quantizer: Quantizer) -> None:
    """Copy codes and averages of the heads of a VectorQuantize."""
    shared = not original.separate_codebook_per_head
    heads = quantizer.groups[0] if len(quantizer.groups) == 1 else None
    if isinstance(heads, MultiHeadVectorQuantizer) and not shared:
        _check_same_distance(original, heads)
        heads.set_codebook(trained_codes(original))
        return
    for head, group in enumerate(groups_of(quantizer, original.heads, shared=shared)):
        copy_codes(original, group, 0 if shared else head)


def copy_codes(original: Any, quantizer: Quantizer, codebook: int = 0) -> None:
    """Copy codes and averages of a VectorQuantize, not its projections. Args: codebook: which of several."""
    trained_codes(original)
    _check_same_distance(original, quantizer)
    state = original._codebook
    set_codebook(quantizer, state.embed[codebook])
    if state.ema_update:
        set_averages(quantizer, state.cluster_size[codebook], state.embed_avg[codebook])


def _check_same_distance(original: Any, quantizer: Quantizer) -> None:
    """Raises: ValueError for a quantizer that compares codes in another way."""
    # The search uses the codes as they are, and a loss that learns them moves them off the unit sphere.
    refuse(
        f"{type(original).__name__}, with keep_codebook=True,",
        orthogonal_reg_weight=original.orthogonal_reg_weight if original.use_cosine_sim else None,
    )
    distance = "cosine" if original.use_cosine_sim else "euclidean"
    if distance_of(quantizer) != distance:
        raise ValueError(
            f"{type(quantizer).__name__} does not compare by {distance} distance, unlike the codes to keep; "
            "expected one of 'vq', 'ema_vq', 'rotation_vq', 'simvq'"
        )
