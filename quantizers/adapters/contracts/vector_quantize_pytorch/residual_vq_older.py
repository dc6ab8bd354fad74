"""ResidualVQ of older versions of vector-quantize-pytorch, and LeRobot's copy of one."""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.contracts.vector_quantize_pytorch.older_versions import (
    restore_masked_of_older,
    stages_of_older,
)
from quantizers.adapters.contracts.vector_quantize_pytorch.residual_vq import ResidualVQAdapter
from quantizers.core.base import Quantizer


class ResidualVQOlderAdapter(ResidualVQAdapter):
    """Replaces ResidualVQ of older versions of vector-quantize-pytorch, of which many repositories have a copy,
    such as VQ-BeT (checked with 1.8, 1.11, 1.12, 1.14 and 1.16; tested with a stand-in).

    The contract is "vector_quantize_pytorch_residual", but the losses are [1, q]; before 1.16 masked positions
    return x. `draw_logits_forward` is a method of VQ-BeT's copy.

    Source: `vector_quantize_pytorch/residual_vq.py` of these versions; Lee et al.: Behavior Generation with Latent
    Actions, 2024 (arXiv 2403.03181), and github.com/jayLEE0301/vq_bet_official.
    """

    contract: ClassVar[str] = "vector_quantize_pytorch_residual_older"
    classes: ClassVar[tuple[str, ...]] = ("ResidualVQ",)

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        if not hasattr(original, cls._lookup):
            raise TypeError(f"it has no {cls._lookup}")
        return super().read_spec(stages_of_older(original))

    _lookup: ClassVar[str] = "get_codes_from_indices"
    """The original's method that looks codes up."""

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        return super().trained_codebook(stages_of_older(original))

    @classmethod
    @torch.no_grad()
    def copy_codebook(cls, original: Any, quantizer: Quantizer) -> None:
        super().copy_codebook(stages_of_older(original), quantizer)

    @classmethod
    def example(cls, original: Any, spec: QuantizerSpec) -> Tensor:
        return super().example(stages_of_older(original), spec)

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        """A forward, and the lookup of its indices."""
        output = module(z)
        yield "forward", output
        yield cls._lookup, getattr(module, cls._lookup)(output[1])

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        indices: None = None,
        return_all_codes: bool = False,
        rand_quantize_dropout_fixed_seed: int | None = None,
        **others: Any,
    ) -> tuple[Tensor, ...]:
        """See the class. Raises: ValueError for any other argument of the original that is set."""
        quantized, found, losses, *codes = super().forward(x, mask, indices, return_all_codes, **others)
        first = next(iter(getattr(self.original, "layers", ())), None)
        return restore_masked_of_older(self, first, quantized, x, mask), found, losses[None], *codes

    def draw_logits_forward(self, encoding_logits: Tensor) -> Tensor:
        """The sum over stages of all codes times weights [B, q, K]: [B, channels].

        Raises: ValueError for stages that differ in their number of codes.
        """
        codes = self.codebooks
        if not isinstance(codes, Tensor):
            raise ValueError(f"stages have {self.codebook_sizes} codes; expected the same number in each")
        return torch.einsum("bqk,qkd->bd", encoding_logits.to(codes.dtype), codes).to(self.dtype)
