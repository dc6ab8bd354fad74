"""LFQ of vector-quantize-pytorch."""

from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.contracts.vector_quantize_pytorch.codebook_axis import (
    decode_by_axes,
    group_options,
    with_codebook_axis,
)
from quantizers.adapters.contracts.vector_quantize_pytorch.common import PackageAdapter, refuse_arguments


class LFQOutput(NamedTuple):
    """The return value of LFQ."""

    quantized: Tensor
    indices: Tensor
    entropy_aux_loss: Tensor


class LFQAdapter(PackageAdapter):
    """Replaces LFQ of vector-quantize-pytorch (tested with 1.32).

    x [B, N, dim] or [B, dim, ...] → (quantized, indices [B, ...], entropy_aux_loss []). The loss is the whole
    loss of the quantizer.

    The channels are on axis 1 with `channel_first`, and for maps, with four axes or more, if that is None. mask
    [B, N] bool. With `num_codebooks` there is a quantizer for each codebook ("grouped"), and indices are
    [B, ..., num_codebooks].

    Not supported: `keep_codebook`, because there are no codes to copy and "lfq" has the bits of an index in the
    opposite order, the first channel's lowest; `inv_temperature` and `return_loss_breakdown` in forward.

    Source: `vector_quantize_pytorch/lookup_free_quantization.py`.
    """

    contract: ClassVar[str] = "vector_quantize_pytorch_lfq"
    classes: ClassVar[tuple[str, ...]] = ("LFQ",)
    reference: ClassVar[str] = "lfq"
    omitted_methods: ClassVar[tuple[str, ...]] = ("bits_to_codes", "dtype")

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        axis = 1 if original.channel_first else -1
        return QuantizerSpec(
            original.dim, original.codebook_size, axis, **group_options(original, original.codebook_dim)
        )

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        out = module(z)
        yield "forward", out
        yield "indices_to_codes", module.indices_to_codes(out[1])

    def forward(
        self,
        x: Tensor,
        inv_temperature: float = 100.0,
        return_loss_breakdown: bool = False,
        mask: Tensor | None = None,
    ) -> LFQOutput:
        """See the class.

        Raises: ValueError for `inv_temperature`, which is an option of the quantizer, and for
            `return_loss_breakdown`.
        """
        refuse_arguments(
            {"inv_temperature": inv_temperature, "return_loss_breakdown": return_loss_breakdown},
            {"inv_temperature": (100,), "return_loss_breakdown": (False,)},
        )
        is_map = x.ndim >= 4 and self._layout_depends_on_axes
        quantized, indices, loss = self.quantizer(x.movedim(1, -1) if is_map else x, mask)
        return LFQOutput(
            quantized.movedim(-1, 1) if is_map else quantized, with_codebook_axis(self, indices), loss
        )

    @property
    def _layout_depends_on_axes(self) -> bool:
        return getattr(self.original, "channel_first", None) is None

    def indices_to_codes(self, indices: Tensor, project_out: bool = True) -> Tensor:
        """The vectors of indices, the channels where x has them. Raises: ValueError for project_out=False."""
        if not project_out:
            raise ValueError(
                "project_out is False, expected True, which returns the vectors as the model gets them"
            )
        return decode_by_axes(self, indices, self._layout_depends_on_axes)
