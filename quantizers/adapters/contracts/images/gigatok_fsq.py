"""FSQ of GigaTok."""

from collections.abc import Iterator
from typing import Any, ClassVar, cast

from torch import Tensor

from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.bases.usage import utilization
from quantizers.adapters.contracts.vector_quantize_pytorch.fsq import FSQAdapter


class GigaTokFSQAdapter(FSQAdapter):
    """Replaces FSQ of GigaTok (main branch; tested with a stand-in).

    z [B, dim, H, W] → (quantized [B, dim, H, W], indices [B, H, W], codebook_usage []). The contract is
    "vector_quantize_pytorch_fsq" with a third value: the fraction of codes that the batch uses, as a tensor. The
    original counts the last 4 K vectors of all batches, those of evaluation too, and returns a float.

    With `num_codebooks` indices have one more axis, the last.

    Source: Xiong et al.: GigaTok: Scaling Visual Tokenizers to 3 Billion Parameters for Autoregressive Image
    Generation, 2025 (arXiv 2504.08736); `tokenizer/tokenizer_image/fsq/fsq_model.py`.
    """

    contract: ClassVar[str] = "gigatok_fsq"
    positions: ClassVar[int] = 2
    reference: ClassVar[str] = "fsq"
    omitted_methods: ClassVar[tuple[str, ...]] = (
        "bound",
        "indices_to_level_indices",
        "level_indices_to_indices",
        "quantize",
    )

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        if not hasattr(original, "show_usage"):
            raise TypeError("it has no show_usage, unlike GigaTok's class")
        return cls._read_sizes(original)

    @classmethod
    def example(cls, original: Any, spec: QuantizerSpec) -> Tensor:
        """A small input. The channels of maps are on axis 1, whatever `channel_first` says."""
        return super().example(original, spec._replace(channel_dim=1))

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        """Each call that models make, with its label and what it returned: of `forward` without the third value,
        which is a number in the original."""
        quantized, indices, _ = module(z)
        yield "forward", (quantized, indices)
        yield "indices_to_codes", module.indices_to_codes(indices)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        """See the class."""
        quantized, indices = cast("tuple[Tensor, Tensor]", super().forward(x))  # it always returns indices
        return quantized, indices, utilization(self.quantizer, indices)
