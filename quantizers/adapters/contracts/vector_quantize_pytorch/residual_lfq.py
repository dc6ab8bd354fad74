"""ResidualLFQ of vector-quantize-pytorch."""

from typing import Any, ClassVar

from torch import Tensor

from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.contracts.vector_quantize_pytorch.common import refuse
from quantizers.adapters.contracts.vector_quantize_pytorch.stages import ResidualAdapter, dropout_options


class ResidualLFQAdapter(ResidualAdapter):
    """Replaces ResidualLFQ of vector-quantize-pytorch (tested with 1.32), also as the modules of
    GroupedResidualLFQ: `at=["rvqs.0", "rvqs.1"]`.

    x [B, N, dim] → (quantized, indices [B, N, q], losses [q]), with return_all_codes also the codes
    [q, B, N, channels].

    With four axes or more x is [B, dim, ...], and indices are [B, ..., q]. mask [B, N] bool: masked vectors get
    index −1 and zero; the original has codes for them. A new "lfq" or "bsq" gets the original's scales, each half
    of the one before.

    Not supported: `keep_codebook`, because "lfq" has the bits of an index in the opposite order, the first
    channel's lowest; stages with several codebooks.

    Source: `vector_quantize_pytorch/residual_lfq.py`.
    """

    contract: ClassVar[str] = "vector_quantize_pytorch_residual_lfq"
    classes: ClassVar[tuple[str, ...]] = ("ResidualLFQ",)
    reference: ClassVar[str] = "lfq"

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        first = original.layers[0]
        count = first.num_codebooks
        refuse(type(original).__name__, num_codebooks=count if count > 1 else None)
        dim = original.project_in.in_features if original.has_projections else first.dim
        scales = tuple(layer.codebook_scale for layer in original.layers)
        options = {"stage_dim": first.dim, "scales": scales, **dropout_options(original)}
        axis = 1 if first.channel_first else -1
        return QuantizerSpec(dim, first.codebook_size, axis, original.num_quantizers, options)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        return_all_codes: bool = False,
        rand_quantize_dropout_fixed_seed: int | None = None,
    ) -> tuple[Tensor, ...]:
        """See the class; the seed is not used."""
        layers = getattr(self.original, "layers", (None,))
        by_axes = getattr(layers[0], "channel_first", None) is None
        is_map = x.ndim >= 4 and self.quantizer.channel_dim == -1 and by_axes
        quantized, indices, losses = self._with_losses(x.movedim(1, -1) if is_map else x, mask)
        outputs = quantized.movedim(-1, 1) if is_map else quantized, indices, losses
        return (*outputs, self.get_codes_from_indices(indices)) if return_all_codes else outputs
