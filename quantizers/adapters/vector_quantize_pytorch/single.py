"""VectorQuantize and SimVQ of vector-quantize-pytorch."""

import copy
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from quantizers.adapters.adapter import Place, set_averages, set_codebook
from quantizers.adapters.vector_quantize_pytorch.common import PackageAdapter, keep_projections, refuse
from quantizers.base import Quantizer
from quantizers.simvq import Matrix, SimVQ


class VectorQuantizeAdapter(PackageAdapter):
    """`VectorQuantize`: x [B, N, dim] → (quantized [B, N, dim], indices [B, N], loss []).

    Also [B, dim]; [B, dim, N] with `channel_last=False`, and maps [B, dim, ...] with `accept_image_fmap` or
    `accept_3d_fmap`. mask [B, N] bool, or lens [B]: vectors that do not count get index −1, and zero or x as the
    original has it.

    The original's loss is zero in evaluation, and ours is what it is in training. Kept with the codebook: the
    projections, the averages of EMA (its step moves the codes alike, but for the replacement of dead codes),
    cosine distance, weights, and how the gradient passes. Where the original learns its codes by gradient, one
    loss moves them and the encoder; here two of that weight do: the gradients are the same, the value is twice
    it.
    """

    contract: ClassVar[str] = "vector_quantize_pytorch"
    classes: ClassVar[tuple[str, ...]] = ("VectorQuantize",)

    @classmethod
    def read(cls, original: Any) -> Place:
        codebook = original._codebook.embed
        refuse(
            type(original).__name__,
            heads=original.heads if original.heads > 1 else None,
            separate_codebook_per_head=original.separate_codebook_per_head,
        )
        options, kept = vector_quantize_settings(original)
        return Place(
            original.dim, original.codebook_size, channel_axis(original), None,
            {"code_dim": codebook.shape[-1], **options}, kept,
        )  # fmt: skip

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        return trained_codes(original)

    @classmethod
    @torch.no_grad()
    def keep(cls, original: Any, quantizer: Quantizer) -> None:
        keep_codes(original, quantizer)
        keep_projections(original, quantizer)

    def forward(
        self,
        x: Tensor,
        indices: None = None,
        mask: Tensor | None = None,
        lens: Tensor | None = None,
        **others: object,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As above. Raises: ValueError for any other argument of the original that is set."""
        refuse("forward", indices=indices, **others)
        if lens is not None:
            refuse("forward with lens", mask=mask)
            places = torch.arange(x.shape[1 if self.quantizer.channel_dim == -1 else -1], device=x.device)
            mask = places < lens[:, None]
        quantized, codes, loss = self.quantizer(x, mask)
        return unmasked(self, quantized, x, mask), codes, loss

    def get_codes_from_indices(self, indices: Tensor) -> Tensor:
        """The codes of indices [...], before they are projected: [..., codebook_dim], in the layout of x.

        Raises: ValueError for several codebooks.
        """
        if self.quantizer.composed:
            raise ValueError(
                f"{type(self.quantizer).__name__} has several codebooks, whose codes are not of one table; "
                "expected get_output_from_indices"
            )
        codes = self.quantizer._decode(indices.reshape(-1)).reshape(*indices.shape, self.codebook_dim)
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


def trained_codes(original: Any) -> Tensor:
    """The codes of a VectorQuantize, [K, codebook_dim].

    Raises: ValueError where they are not what it searches, and before its k-means.
    """
    state = original._codebook
    refuse(
        f"{type(original).__name__}, whose codes are to be kept,",
        heads=original.heads if original.heads > 1 else None,
        affine_param=state.affine_param,
        vq_bridge=state.vq_bridge,
    )
    if not state.initted:
        raise ValueError(
            f"{type(original).__name__} has kmeans_init=True and has seen no batch: it holds no codes to keep"
        )
    codes: Tensor = state.embed[0]
    return codes


def keep_codes(original: Any, quantizer: Quantizer) -> None:
    """Codes and averages of a VectorQuantize, without its projections."""
    codes, state = trained_codes(original), original._codebook
    # A loss that learns the codes does not leave them on the unit sphere, and the search takes them as they are.
    refuse(
        f"{type(original).__name__}, whose codes are to be kept,",
        orthogonal_reg_weight=original.orthogonal_reg_weight if original.use_cosine_sim else None,
        freeze_codebook=original.freeze_codebook,
    )
    distance = "cosine" if original.use_cosine_sim else "euclidean"
    if getattr(quantizer, "distance", "euclidean") != distance:
        raise ValueError(
            f"{type(quantizer).__name__} does not compare by {distance} distance, as the codes to be kept are: "
            "expected one of 'vq', 'ema_vq', 'rotation_vq', 'simvq'"
        )
    set_codebook(quantizer, codes)
    if state.ema_update:
        set_averages(quantizer, state.cluster_size[0], state.embed_avg[0])


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
