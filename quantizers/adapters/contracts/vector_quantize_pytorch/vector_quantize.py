"""VectorQuantize of vector-quantize-pytorch."""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from quantizers.adapters.bases.codebook_view import flat_indices
from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.contracts.vector_quantize_pytorch.common import (
    PackageAdapter,
    copy_projections,
    refuse,
    refuse_arguments,
    temporarily_frozen,
)
from quantizers.adapters.contracts.vector_quantize_pytorch.vector_quantize_state import (
    channel_axis,
    copy_codes,
    copy_heads,
    example_of_maps,
    is_frozen,
    restore_masked,
    trained_codes,
    vector_quantize_settings,
    warn_of_lost_training,
)
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
"""Arguments of the original's forward, each with the values that have no effect."""


class VectorQuantizeAdapter(PackageAdapter):
    """Replaces VectorQuantize of vector-quantize-pytorch (tested with 1.32).

    x [B, N, dim] → (quantized [B, N, dim], indices [B, N], loss []).

    x can be [B, dim] too; [B, dim, N] with `channel_last=False`; and a map [B, dim, ...] with `accept_image_fmap`
    or `accept_3d_fmap`. mask [B, N] bool, or lens [B]: vectors that do not count get index −1, and zero or x,
    whichever the original returns. With `heads` there is a quantizer for each head, or one for all of them
    ("grouped", with a projection if the heads together have another number of channels than x), and indices are
    [B, N, heads].

    The loss is the same in training and evaluation; the original's is zero in evaluation. With `freeze_codebook`
    the codes stay unchanged in a forward in training.

    With `keep_codebook` the projections and the averages of EMA are copied (a step moves the codes as the
    original's would move), as are cosine distance, weights, and the way the gradient passes. Codes that do not
    move in the original stay frozen (`freeze_codebook`, decay 1, or no EMA and no gradient). Where the original
    learns its codes by gradient, one loss moves them and the encoder. Here there are two losses of that weight:
    the gradients are the same, and the value is twice as large.

    Not supported: given `indices`, `topk`, sampling, a breakdown of the loss and other arguments of forward; with
    `keep_codebook` `affine_param` and `vq_bridge`. Training continues without the replacement of dead codes,
    sampling and further losses; a warning names them.

    Source: `vector_quantize_pytorch/vector_quantize_pytorch.py`.
    """

    contract: ClassVar[str] = "vector_quantize_pytorch"
    classes: ClassVar[tuple[str, ...]] = ("VectorQuantize",)
    omitted_methods: ClassVar[tuple[str, ...]] = (
        "ema_update",
        "expire_codes_",
        "maybe_split_heads_from_input",
        "update_ema_indices",
        "update_in_place_optimizer",
        "update_indices",
    )

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        width = original._codebook.embed.shape[-1]
        options, keep_options = vector_quantize_settings(original)
        heads: dict[str, Any] = {}
        if original.heads > 1:
            shared = not original.separate_codebook_per_head
            heads = {"num_groups": original.heads, "group_dim": width, "shared_codebook": shared}
        return QuantizerSpec(
            original.dim, original.codebook_size, channel_axis(original), None,
            {"code_dim": width, **options}, keep_options, **heads,
        )  # fmt: skip

    @classmethod
    def example(cls, original: Any, spec: QuantizerSpec) -> Tensor:
        return example_of_maps(original, spec)

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        out = module(z)
        yield "forward", out
        if out[1].dim() == z.dim() - 1 and module.codebook.dim() == 2:  # the original's does not work with heads
            yield "get_output_from_indices", module.get_output_from_indices(out[1])

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        return trained_codes(original)

    @classmethod
    @torch.no_grad()
    def copy_codebook(cls, original: Any, quantizer: Quantizer) -> None:
        if original.heads > 1:
            copy_heads(original, quantizer)
        else:
            copy_codes(original, quantizer)
        copy_projections(original, quantizer)
        warn_of_lost_training(original)
        if is_frozen(original):
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
        """See the class. For a graph without breaks, call `quantizer.freeze()` instead of passing
        `freeze_codebook`.

        Raises: ValueError for any other argument of the original that is set.
        """
        refuse_arguments({"indices": indices, **others}, FORWARD_DEFAULTS)
        if lens is not None:
            refuse("forward with lens", mask=mask)
            positions = torch.arange(x.shape[1 if self.quantizer.channel_dim == -1 else -1], device=x.device)
            mask = positions < lens[:, None]
        with temporarily_frozen(self.quantizer, freeze_codebook):
            quantized, codes, loss = self.quantizer(x, mask)
        return restore_masked(self, quantized, x, mask), codes, loss

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
        """The codes of indices [...], before they are projected: [..., codebook_dim], in the layout of x. Index
        −1 gives zero.

        Raises: ValueError for several codebooks; those of heads are allowed, and their codes are side by side.
        """
        if self.quantizer.composed and not self._has_heads:
            raise ValueError(
                f"{type(self.quantizer).__name__} has several codebooks, so its codes are not in one table; "
                "use get_output_from_indices"
            )
        shape = indices.shape[:-1] if self._has_heads else indices.shape
        flat = flat_indices(self.quantizer, indices)
        found = flat >= 0
        quantizer: Any = self.quantizer
        codes: Tensor = quantizer._decode(flat.where(found, quantizer._missing_index))
        if not self._has_heads:  # with heads, missing codes are zero already
            codes = codes.where(found[:, None], 0.0)
        codes = codes.reshape(*shape, self.codebook_dim)
        return codes.movedim(-1, self.quantizer.channel_dim).to(self.dtype)

    def get_output_from_indices(self, indices: Tensor) -> Tensor:
        """The vectors of indices [...], in the layout of x."""
        return self._decode_indices(indices)
