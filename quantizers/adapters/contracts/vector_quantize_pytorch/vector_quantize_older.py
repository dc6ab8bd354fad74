"""VectorQuantize of older versions of vector-quantize-pytorch."""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.contracts.vector_quantize_pytorch.older_versions import (
    restore_masked_of_older,
    stage_of_older,
)
from quantizers.adapters.contracts.vector_quantize_pytorch.vector_quantize import VectorQuantizeAdapter
from quantizers.core.base import Quantizer


class VectorQuantizeOlderAdapter(VectorQuantizeAdapter):
    """Replaces VectorQuantize of older versions of vector-quantize-pytorch, of which many repositories have a copy
    (checked with 1.6, 1.8, 1.11, 1.12, 1.14 and 1.16; tested with a stand-in).

    The contract is "vector_quantize_pytorch", but the loss is [1]; before 1.16 masked positions return x.

    Source: `vector_quantize_pytorch/vector_quantize_pytorch.py` of these versions.
    """

    contract: ClassVar[str] = "vector_quantize_pytorch_older"
    classes: ClassVar[tuple[str, ...]] = ("VectorQuantize",)

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        return super().read_spec(stage_of_older(original))

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        return super().trained_codebook(stage_of_older(original))

    @classmethod
    @torch.no_grad()
    def copy_codebook(cls, original: Any, quantizer: Quantizer) -> None:
        super().copy_codebook(stage_of_older(original), quantizer)

    @classmethod
    def example(cls, original: Any, spec: QuantizerSpec) -> Tensor:
        return super().example(stage_of_older(original), spec)

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        yield "forward", module(z)

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
        """See the class. Raises: ValueError for any other argument of the original that is set."""
        quantized, found, loss = super().forward(
            x, indices, mask, lens, freeze_codebook=freeze_codebook or None, **others
        )
        return restore_masked_of_older(self, self.original, quantized, x, mask), found, loss[None]
