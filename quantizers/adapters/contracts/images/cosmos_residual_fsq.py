"""ResidualFSQuantizer of the Cosmos tokenizers, for images and videos."""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from quantizers.adapters.bases.copying import stages_of
from quantizers.adapters.bases.given_dtype import GivenDtypeAdapter
from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.contracts.images.cosmos_fsq import CosmosFSQAdapter, Encoded, loss_of_samples
from quantizers.core.base import Quantizer


class CosmosResidualFSQAdapter(GivenDtypeAdapter):
    """Replaces ResidualFSQuantizer of github.com/NVIDIA/Cosmos-Tokenizer (no release; tested with a stand-in).

    z [B, D, H, W] → (indices [B, N, H, W], quantized [B, D, H, W], loss [B, 1, 1, 1]), with N stages. z can also
    be a video [B, D, T, H, W] or a sequence [B, L, D], as in CosmosFSQAdapter, where losses and dtypes are
    described.

    "fsq" stands for "residual_fsq", whose stages are ever finer grids. The original's stages all round on the same
    grid and bound the residual each time; `plug_in(model, "residual", quantizer="fsq", keep_codebook=True)` gives
    its results. Training then continues with the gradients of ResidualQuantizer, which follow the chain rule, and
    the original holds the residual constant.

    Not supported: the attribute `residual`.

    Source: NVIDIA: Cosmos World Foundation Model Platform for Physical AI, 2025 (arXiv 2501.03575);
    `cosmos_tokenizer/modules/quantizers.py`.
    """

    contract: ClassVar[str] = "cosmos_residual_fsq"
    classes: ClassVar[tuple[str, ...]] = ("ResidualFSQuantizer",)
    has_stages: ClassVar[bool] = True
    positions: ClassVar[int] = 2
    reference: ClassVar[str] = "fsq"

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        spec = CosmosFSQAdapter.read_spec(original.layers[0])
        if spec.num_groups is not None:
            raise ValueError(
                f"{type(original).__name__} has stages with {spec.num_groups} codebooks; expected one in each"
            )
        return spec._replace(num_quantizers=len(original.layers))

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        """The grids of all stages, [N, K, channels]."""
        return torch.stack([CosmosFSQAdapter.trained_codebook(layer) for layer in original.layers])

    @classmethod
    @torch.no_grad()
    def copy_codebook(cls, original: Any, quantizer: Quantizer) -> None:
        """Check the grids of the stages, and copy their projections."""
        for stage, layer in zip(stages_of(quantizer, len(original.layers)), original.layers, strict=True):
            CosmosFSQAdapter.copy_codebook(layer, stage)

    @classmethod
    def example(cls, original: Any, spec: QuantizerSpec) -> Tensor:
        """Images [B, D, H, W]."""
        return super().example(original, spec._replace(channel_dim=1))

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        """The calls of Cosmos' tokenizers; the original decodes in another dtype than it encodes."""
        output = module(z)
        yield "forward", output
        yield "indices_to_codes", module.indices_to_codes(output[0]).float()

    def forward(self, z: Tensor) -> Encoded:
        """See the class."""
        is_map = z.ndim >= 4
        quantized, indices, loss = self.quantizer(z.movedim(1, -1) if is_map else z)
        quantized = (quantized.movedim(-1, 1) if is_map else quantized).to(self.dtype)
        return indices.movedim(-1, 1), quantized, loss_of_samples(loss, z).to(self.dtype)

    def indices_to_codes(self, indices_stack: Tensor) -> Tensor:
        """The vectors [B, D, H, W] of indices [B, N, H, W]; for a sequence [B, L, D] of [B, N, L]."""
        vectors = self._decode_indices(indices_stack.movedim(1, -1))
        return vectors.movedim(-1, 1) if indices_stack.ndim >= 4 else vectors
