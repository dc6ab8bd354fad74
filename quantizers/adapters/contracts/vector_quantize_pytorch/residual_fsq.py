"""ResidualFSQ of vector-quantize-pytorch."""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from quantizers.adapters.bases.grid import check_residual_grid, residual_grid_options, symmetric_codes
from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.contracts.vector_quantize_pytorch.common import (
    WithoutLossAdapter,
    copy_projections,
    refuse,
)
from quantizers.adapters.contracts.vector_quantize_pytorch.stages import ResidualAdapter, dropout_options
from quantizers.core.base import Quantizer


class ResidualFSQAdapter(ResidualAdapter, WithoutLossAdapter):
    """Replaces ResidualFSQ of vector-quantize-pytorch (tested with 1.32).

    x [B, N, dim] → (quantized, indices [B, N, q]), with return_all_codes also the codes [q, B, N, channels].

    With `is_channel_first` x is [B, dim, ...], and indices are [B, q, ...], as in the original; the methods that
    decode take indices [..., q]. The contract has no loss; the attribute `loss` is that of the last forward.

    A new "fsq" gets the original's levels, on the grids of "residual_fsq". With `keep_codebook` its stages are
    those of the original: a soft clamp before the first, and levels that stand evenly from −1 to 1
    (`FSQ(symmetric=True)`); the projections are copied. Codes and indices are then the original's, except where a
    channel is within rounding of the edge between two levels. The gradient of x goes straight through the sum of
    the stages, once; in the original it goes through each stage, and is as many times as large.

    Not supported with `keep_codebook`: `bound_hard_clamp=False`, `noise_dropout` and `orthogonal_rotation`.

    Source: `vector_quantize_pytorch/residual_fsq.py`.
    """

    contract: ClassVar[str] = "vector_quantize_pytorch_residual_fsq"
    classes: ClassVar[tuple[str, ...]] = ("ResidualFSQ",)
    reference: ClassVar[str] = "fsq"

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        levels = tuple(original.layers[0]._levels.tolist())
        dim = original.project_in.in_features if original.has_projections else len(levels)
        axis = 1 if original.is_channel_first else -1
        options = {"levels": levels, **dropout_options(original)}
        keep_options = residual_grid_options(levels, original.num_quantizers)
        return QuantizerSpec(dim, original.codebook_size, axis, original.num_quantizers, options, keep_options)

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        """The grid of each stage, [stages, K, channels], before it is scaled."""
        return symmetric_codes(original.layers[0]._levels.long()).expand(original.num_quantizers, -1, -1)

    @classmethod
    @torch.no_grad()
    def copy_codebook(cls, original: Any, quantizer: Quantizer) -> None:
        first = original.layers[0]
        if not first.bound_hard_clamp:
            raise ValueError(
                f"{type(original).__name__} has bound_hard_clamp=False, which keep_codebook does not support; "
                "expected True"
            )
        refuse(
            f"{type(original).__name__}, with keep_codebook=True,",
            noise_dropout=first.noise_dropout,
            orthogonal_rotation=first.orthogonal_rotation,
        )
        levels = tuple(first._levels.tolist())
        check_residual_grid(quantizer.evaluated, levels, original.num_quantizers)
        copy_projections(original, quantizer.evaluated)

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        out = module(z)
        yield "forward", out

    def forward(
        self, x: Tensor, return_all_codes: bool = False, rand_quantize_dropout_fixed_seed: int | None = None
    ) -> tuple[Tensor, ...]:
        """See the class; the seed is not used."""
        quantized, indices = self._quantize(x)
        outputs = quantized, indices.movedim(-1, self.quantizer.channel_dim)
        return (*outputs, self.get_codes_from_indices(indices)) if return_all_codes else outputs
