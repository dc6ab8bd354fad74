"""VectorQuantize and SimVQ of vector-quantize-pytorch."""

import copy
import warnings
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from quantizers.adapters.bases.adapter import Place, flat_indices, groups_of, set_averages, set_codebook
from quantizers.adapters.contracts.vector_quantize_pytorch.common import (
    PackageAdapter,
    frozen_if,
    keep_projections,
    refuse,
    refuse_arguments,
)
from quantizers.codebooks.multihead import MultiHeadVectorQuantizer
from quantizers.codebooks.simvq import Matrix, SimVQ
from quantizers.core.base import Quantizer

FORWARD_DEFAULTS: dict[str, tuple[object, ...]] = {
    "indices": (None,),
    "topk": (None,),
    "sample_codebook_temp": (None, 0),
    "return_loss_breakdown": (False,),
    "codebook_transform_fn": (None,),
    "ema_update_weight": (None,),
    "accum_ema_update": (False,),
    "ema_update": (None,),
}
"""Arguments of the original's forward, each with the values that ask for nothing."""


class VectorQuantizeAdapter(PackageAdapter):
    """`VectorQuantize`: x [B, N, dim] → (quantized [B, N, dim], indices [B, N], loss []).

    Also [B, dim]; [B, dim, N] with `channel_last=False`, and maps [B, dim, ...] with `accept_image_fmap` or
    `accept_3d_fmap`. mask [B, N] bool, or lens [B]: vectors that do not count get index −1, and zero or x as the
    original has it. With `heads` a quantizer for each, or one for all of them ("grouped", with a projection where
    the heads together have other channels than x): indices [B, N, heads].

    The original's loss is zero in evaluation, and ours is what it is in training. With `freeze_codebook` the codes
    stay as they are in a forward in training. Kept with the codebook: the projections, the averages of EMA (its
    step moves the codes alike), cosine distance, weights, how the gradient passes, and that the codes stay where
    the original's do (`freeze_codebook`, decay 1, or no EMA and no gradient). Training goes on without the
    replacement of dead codes, sampling and further losses, which a warning names. Where the original learns its
    codes by gradient, one loss moves them and the encoder; here two of that weight do: the gradients are the same,
    the value is twice it.
    """

    contract: ClassVar[str] = "vector_quantize_pytorch"
    classes: ClassVar[tuple[str, ...]] = ("VectorQuantize",)

    @classmethod
    def read(cls, original: Any) -> Place:
        width = original._codebook.embed.shape[-1]
        options, kept = vector_quantize_settings(original)
        heads: dict[str, Any] = {}
        if original.heads > 1:
            shared = not original.separate_codebook_per_head
            heads = {"groups": original.heads, "group_dim": width, "one_codebook": shared}
        return Place(
            original.dim, original.codebook_size, channel_axis(original), None,
            {"code_dim": width, **options}, kept, **heads,
        )  # fmt: skip

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        return trained_codes(original)

    @classmethod
    @torch.no_grad()
    def keep(cls, original: Any, quantizer: Quantizer) -> None:
        if original.heads > 1:
            keep_heads(original, quantizer)
        else:
            keep_codes(original, quantizer)
        keep_projections(original, quantizer)
        warn_of_training(original)
        if keeps_still(original):
            quantizer.freeze()

    def forward(
        self,
        x: Tensor,
        indices: None = None,
        mask: Tensor | None = None,
        lens: Tensor | None = None,
        *,
        freeze_codebook: bool | None = None,
        **others: object,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As above. A graph without breaks has no `freeze_codebook`: there call `quantizer.freeze()` before.

        Raises: ValueError for any other argument of the original that is set.
        """
        refuse_arguments({"indices": indices, **others}, FORWARD_DEFAULTS)
        if lens is not None:
            refuse("forward with lens", mask=mask)
            places = torch.arange(x.shape[1 if self.quantizer.channel_dim == -1 else -1], device=x.device)
            mask = places < lens[:, None]
        with frozen_if(self.quantizer, freeze_codebook):
            quantized, codes, loss = self.quantizer(x, mask)
        return unmasked(self, quantized, x, mask), codes, loss

    @property
    def _has_axis_of_one(self) -> bool:
        return not self.quantizer.composed and getattr(self.original, "separate_codebook_per_head", False)

    @property
    def _has_one_codebook(self) -> bool:
        return self._has_heads and not self.original.separate_codebook_per_head

    @property
    def _has_heads(self) -> bool:
        return self.quantizer.composed and getattr(self.original, "heads", 1) > 1

    def get_codes_from_indices(self, indices: Tensor) -> Tensor:
        """The codes of indices [...], before they are projected: [..., codebook_dim], in the layout of x. −1 gives
        zero.

        Raises: ValueError for several codebooks, but for those of heads, whose codes are side by side.
        """
        if self.quantizer.composed and not self._has_heads:
            raise ValueError(
                f"{type(self.quantizer).__name__} has several codebooks, whose codes are not of one table; "
                "expected get_output_from_indices"
            )
        shape = indices.shape[:-1] if self._has_heads else indices.shape
        flat = flat_indices(self.quantizer, indices)
        found = flat >= 0
        quantizer: Any = self.quantizer
        codes: Tensor = quantizer._decode(flat.where(found, quantizer._missing_index))
        if not self._has_heads:  # else the missing ones are zero already
            codes = codes.where(found[:, None], 0.0)
        codes = codes.reshape(*shape, self.codebook_dim)
        return codes.movedim(-1, self.quantizer.channel_dim).to(self.dtype)

    def get_output_from_indices(self, indices: Tensor) -> Tensor:
        """The vectors of indices [...], in the layout of x."""
        return self._decoded(indices)


class SimVQAdapter(PackageAdapter):
    """`SimVQ`: x [B, ..., dim], with `channel_first` [B, dim, ...] → (quantized, indices [B, ...], loss []).

    Kept with the codebook by "simvq": the frozen basis, the transform, both weights and how the gradient passes,
    so that training goes on as the original's. Others, and "simvq" where the basis has other channels than x, keep
    the codes, the transform already applied.
    """

    contract: ClassVar[str] = "vector_quantize_pytorch_simvq"
    classes: ClassVar[tuple[str, ...]] = ("SimVQ",)

    @classmethod
    def read(cls, original: Any) -> Place:
        size, dim = trained_simvq_codes(original).shape
        return Place(dim, size, 1 if original.channel_first else -1, kept=simvq_settings(original))

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        return trained_simvq_codes(original)

    @classmethod
    def keep(cls, original: Any, quantizer: Quantizer) -> None:
        keep_simvq(original, quantizer)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As above."""
        quantized, indices, loss = self.quantizer(x)
        return quantized, indices, loss

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        """The vectors of indices [B, ...], in the layout of x."""
        return self._decoded(indices)


def channel_axis(original: Any) -> int:
    """Where a VectorQuantize has its channels."""
    first = original.accept_image_fmap or original.accept_3d_fmap or not original.channel_last
    return 1 if first else -1


def unmasked(adapter: PackageAdapter, quantized: Tensor, x: Tensor, mask: Tensor | None) -> Tensor:
    """`quantized`, with x itself where masked if the original gives it back there."""
    if mask is None or getattr(adapter.original, "return_zeros_for_masked_padding", True):
        return quantized
    return quantized.where(mask.unsqueeze(adapter.quantizer.channel_dim), x)


def vector_quantize_settings(original: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a new quantizer takes over from a VectorQuantize, and what one takes that keeps its codes."""
    options = {"distance": "cosine"} if original.use_cosine_sim else {}
    kept = {
        "commitment_weight": original.commitment_weight,
        "gradient": "rotation" if original.rotation_trick else "straight_through",
        "decay": original._codebook.decay,
        "epsilon": original._codebook.eps,
    }
    if original._codebook.learnable_codebook:
        kept["codebook_weight"] = original.commitment_weight
    return options, kept


def warn_of_training(original: Any) -> None:
    """Warn of what a VectorQuantize does in training and a quantizer that keeps its codes does not."""
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
            f"{type(original).__name__} has {', '.join(lost)}: its codes are kept, and training goes on without "
            "that. quantizers.replacement and quantizers.regularizers have ours.",
            stacklevel=2,
        )


def keeps_still(original: Any) -> bool:
    """Whether a VectorQuantize leaves its codes where they are in training."""
    state = original._codebook
    learns = state.learnable_codebook or (state.ema_update and state.decay < 1)
    return bool(original.freeze_codebook or not learns)


def trained_codes(original: Any) -> Tensor:
    """The codes of a VectorQuantize, [K, codebook_dim]; of heads with codes of their own [heads, K, codebook_dim].

    Raises: ValueError where they are not what it searches, and before its k-means.
    """
    state = original._codebook
    refuse(
        f"{type(original).__name__}, whose codes are to be kept,",
        affine_param=state.affine_param,
        vq_bridge=state.vq_bridge,
    )
    if not state.initted:
        raise ValueError(
            f"{type(original).__name__} has kmeans_init=True and has seen no batch: it holds no codes to keep"
        )
    codes: Tensor = state.embed if len(state.embed) > 1 else state.embed[0]
    return codes


def keep_heads(original: Any, quantizer: Quantizer) -> None:
    """Codes and averages of the heads of a VectorQuantize."""
    shared = not original.separate_codebook_per_head
    heads = quantizer.groups[0] if len(quantizer.groups) == 1 else None
    if isinstance(heads, MultiHeadVectorQuantizer) and not shared:
        _check_searched_alike(original, heads)
        heads.set_codebook(trained_codes(original))
        return
    for head, part in enumerate(groups_of(quantizer, original.heads, shared=shared)):
        keep_codes(original, part, 0 if shared else head)


def keep_codes(original: Any, quantizer: Quantizer, codebook: int = 0) -> None:
    """Codes and averages of a VectorQuantize, without its projections. Args: codebook: which of several."""
    trained_codes(original)
    _check_searched_alike(original, quantizer)
    state = original._codebook
    set_codebook(quantizer, state.embed[codebook])
    if state.ema_update:
        set_averages(quantizer, state.cluster_size[codebook], state.embed_avg[codebook])


def _check_searched_alike(original: Any, quantizer: Quantizer) -> None:
    """Raises: ValueError for codes that this quantizer would compare in another way."""
    # A loss that learns the codes does not leave them on the unit sphere, and the search takes them as they are.
    refuse(
        f"{type(original).__name__}, whose codes are to be kept,",
        orthogonal_reg_weight=original.orthogonal_reg_weight if original.use_cosine_sim else None,
    )
    distance = "cosine" if original.use_cosine_sim else "euclidean"
    if getattr(quantizer, "distance", "euclidean") != distance:
        raise ValueError(
            f"{type(quantizer).__name__} does not compare by {distance} distance, as the codes to be kept are: "
            "expected one of 'vq', 'ema_vq', 'rotation_vq', 'simvq'"
        )


def simvq_settings(original: Any) -> dict[str, Any]:
    """What makes losses and gradients those of a SimVQ."""
    return {
        "commitment_weight": original.commitment_weight * original.input_to_quantize_commit_loss_weight,
        "codebook_weight": original.commitment_weight,
        "gradient": "rotation" if original.rotation_trick else "straight_through",
    }


@torch.no_grad()
def trained_simvq_codes(original: Any) -> Tensor:
    """The codes of a SimVQ, [K, dim]."""
    codes: Tensor = original.code_transform(original.frozen_codebook)
    return codes


@torch.no_grad()
def keep_simvq(original: Any, quantizer: Quantizer) -> None:
    """Basis and transform of a SimVQ, or where the quantizer has no such, the codes."""
    codes = trained_simvq_codes(original)
    if not isinstance(quantizer, SimVQ) or type(quantizer.transform) is not Matrix:
        set_codebook(quantizer, codes)
        return
    quantizer.set_codebook(codes)
    transform = original.code_transform
    if original.frozen_codebook.shape != codes.shape:
        return
    if type(transform) is nn.Linear and transform.bias is None:
        quantizer.transform.load_state_dict(transform.state_dict())
    else:
        quantizer.transform = copy.deepcopy(transform).to(torch.float32)
    quantizer.basis.copy_(original.frozen_codebook)
