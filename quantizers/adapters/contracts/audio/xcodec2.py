"""The FSQ of X-Codec 2 and NeuCodec in transformers."""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from quantizers.adapters.bases.grid import check_grid, grid_codes
from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.contracts.vector_quantize_pytorch.common import WithoutLossAdapter, copy_projections
from quantizers.core.base import Quantizer

BOUND = "tanh_twice"
"""The originals apply FSQ's bound before an FSQ that applies it again."""


class Xcodec2Adapter(WithoutLossAdapter):
    """Replaces Xcodec2Quantizer and NeuCodecQuantizer of transformers (tested with 5.23).

    h [B, T, D] → (quantized [B, T, D], indices [B, T, 1]), with several codebooks indices [B, T, n].
    `from_codes(indices)` → [B, T, D]. Models pass audio_codes [B, n, T] on.

    Indices are int64; the original's are int32. The contract has no loss. To train a quantizer that has one, add
    the attribute `loss`, that of the last forward, for a training loop such as

        output = model(input_values, input_features)  # for X-Codec 2 of 16 kHz; NeuCodec's output has 24 kHz
        loss = reconstruction_loss(output.audio_values, input_values) + model.quantizer.loss

    A new "fsq" gets the original's levels, with FSQ's usual bound. With `keep_codebook` both projections are
    copied, and the bound is "tanh_twice", as in the original; codes and indices are then the original's, except
    where a channel is within rounding of the edge between two levels.

    Not supported with `keep_codebook`: other quantizers than FSQ, two levels in a channel, and as many channels of
    h as there are levels.

    Source: Ye et al.: Llasa: Scaling Train-Time and Inference-Time Compute for Llama-based Speech Synthesis, 2025
    (arXiv 2502.04128); `models/xcodec2/modeling_xcodec2.py` and `models/neucodec/modeling_neucodec.py` in
    transformers.
    """

    contract: ClassVar[str] = "xcodec2"
    classes: ClassVar[tuple[str, ...]] = ("Xcodec2Quantizer", "NeuCodecQuantizer")
    reference: ClassVar[str] = "fsq"

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        """The calls that the models make."""
        quantized, indices = module(z)
        yield "forward", (quantized, indices)
        yield "from_codes", module.from_codes(indices)

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        size, _ = original.quantizer.codebook.shape
        options = {"levels": _levels(original)}
        return QuantizerSpec(
            original.project_in.in_features, size, cls.channel_dim, None, options, {"bound": BOUND}
        )

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        """FSQ's grid, [K, channels], before the projection out."""
        return grid_codes(torch.tensor(_levels(original), device=original.project_in.weight.device))

    @classmethod
    @torch.no_grad()
    def copy_codebook(cls, original: Any, quantizer: Quantizer) -> None:
        quantizer = quantizer.evaluated
        check_grid(quantizer, _levels(original), BOUND)
        if quantizer.dim == quantizer.code_dim:
            raise ValueError(
                f"{type(original).__name__} projects {quantizer.dim} channels to as many, which keep_codebook "
                "does not support: FSQ projects only where the number of channels changes"
            )
        copy_projections(original, quantizer)

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        quantized, indices = self._quantize(hidden_states)
        return quantized, indices if self.quantizer.composed else indices[..., None]

    def from_codes(self, indices: Tensor) -> Tensor:
        """The vectors [B, T, D] of indices [B, T, 1], or [B, T, n] of n codebooks."""
        return self._decode_indices(indices if self.quantizer.composed else indices[..., 0])


def _levels(original: Any) -> tuple[int, ...]:
    return tuple(original.quantizer.quantization_levels)
