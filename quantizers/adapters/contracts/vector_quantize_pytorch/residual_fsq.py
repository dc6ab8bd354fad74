"""ResidualFSQ of vector-quantize-pytorch."""

from collections.abc import Iterator
from typing import Any, ClassVar

from torch import Tensor

from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.contracts.vector_quantize_pytorch.common import WithoutLossAdapter
from quantizers.adapters.contracts.vector_quantize_pytorch.stages import ResidualAdapter, dropout_options


class ResidualFSQAdapter(ResidualAdapter, WithoutLossAdapter):
    """Replaces ResidualFSQ of vector-quantize-pytorch (tested with 1.32).

    x [B, N, dim] → (quantized, indices [B, N, q]), with return_all_codes also the codes [q, B, N, channels].

    With `is_channel_first` x is [B, dim, ...], and indices are [B, q, ...], as in the original; the methods that
    decode take indices [..., q]. The contract has no loss; the attribute `loss` is that of the last forward. A new
    "fsq" gets the original's levels, on the grids of "residual_fsq".

    Not supported: `keep_codebook`, because these grids differ from the original's.

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
        return QuantizerSpec(dim, original.codebook_size, axis, original.num_quantizers, options)

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
