"""The residual FSQ of ACE-Step in diffusers: _AceStepResidualFSQ."""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from quantizers.adapters.bases.grid import check_residual_grid, residual_grid_options, symmetric_codes
from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.contracts.vector_quantize_pytorch.common import WithoutLossAdapter, copy_projections
from quantizers.adapters.contracts.vector_quantize_pytorch.stages import ResidualAdapter
from quantizers.core.base import Quantizer


class AceStepAdapter(ResidualAdapter, WithoutLossAdapter):
    """Replaces _AceStepResidualFSQ of diffusers (tested with 0.42), the quantizer of AceStepAudioTokenizer.

    h [B, T, D] → (quantized [B, T, D], indices [B, T, q]). `get_output_from_indices` returns the vectors of
    indices, and `get_codes_from_indices` what each stage adds to them, before the projection. Indices [B, T] are
    those of a single stage.

    The contract has no loss. To train a quantizer that has one, add the attribute `loss`, that of the last
    forward:

        quantized, indices = tokenizer.tokenize(latents)
        loss = reconstruction_loss(detokenizer(quantized), latents) + tokenizer.quantizer.loss

    A pipeline reads `codebook_size`, and fills indices of as many stages as the tokenizer's configuration counts;
    a residual quantizer of more stages decodes the first of them.

    A new "fsq" gets the original's levels, on the grids of "residual_fsq". With `keep_codebook` its stages are
    those of the original: a soft clamp before the first, and levels that stand evenly from −1 to 1
    (`FSQ(symmetric=True)`); both projections are copied. Codes and indices are then the original's, except where
    a channel is within rounding of the edge between two levels. The original's rounding passes no gradient; here
    the gradient goes straight through it.

    Not supported with `keep_codebook`: other quantizers than FSQ, and as many channels of h as there are levels.

    Source: Gong et al.: ACE-Step 1.5: Pushing the Boundaries of Open-Source Music Generation, 2026 (arXiv
    2602.00744); `pipelines/ace_step/modeling_ace_step.py` in diffusers.
    """

    contract: ClassVar[str] = "ace_step"
    classes: ClassVar[tuple[str, ...]] = ("_AceStepResidualFSQ",)
    reference: ClassVar[str] = "fsq"

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        """The calls that the tokenizer and pipelines make."""
        quantized, indices = module(z)
        yield "forward", (quantized, indices)
        yield "codebook_size", module.codebook_size
        yield "get_output_from_indices", module.get_output_from_indices(indices)
        yield "get_codes_from_indices", module.get_codes_from_indices(indices)

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        levels = tuple(original.levels)
        stages = len(original.scales)
        return QuantizerSpec(
            original.project_in.in_features,
            original.codebook_size,
            cls.channel_dim,
            stages,
            {"levels": levels},
            residual_grid_options(levels, stages),
        )

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        """The grid of each stage, [stages, K, channels], before it is scaled."""
        return symmetric_codes(original._levels.long()).expand(len(original.scales), -1, -1)

    @classmethod
    @torch.no_grad()
    def copy_codebook(cls, original: Any, quantizer: Quantizer) -> None:
        quantizer = quantizer.evaluated
        check_residual_grid(quantizer, tuple(original.levels), len(original.scales))
        if quantizer.dim == quantizer.code_dim:
            raise ValueError(
                f"{type(original).__name__} projects {quantizer.dim} channels to as many, which keep_codebook "
                "does not support: a quantizer projects only where the number of channels changes"
            )
        copy_projections(original, quantizer)

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        return self._quantize(hidden_states)

    def get_codes_from_indices(self, indices: Tensor) -> Tensor:
        """See `ResidualAdapter`; also for indices [B, T] of a single stage."""
        return super().get_codes_from_indices(_with_stages(indices))

    def get_output_from_indices(self, indices: Tensor) -> Tensor:
        """The vectors [B, T, D] of indices [B, T, q], or [B, T] of a single stage."""
        return super().get_output_from_indices(_with_stages(indices))


def _with_stages(indices: Tensor) -> Tensor:
    return indices[..., None] if indices.ndim == 2 else indices
