"""FSQuantizer of the Cosmos tokenizers, for images and videos."""

from collections.abc import Iterator
from typing import Any, ClassVar

from torch import Tensor

from quantizers.adapters.bases.given_dtype import GivenDtypeAdapter
from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.contracts.vector_quantize_pytorch.codebook_axis import group_options
from quantizers.adapters.contracts.vector_quantize_pytorch.fsq import FSQAdapter

Encoded = tuple[Tensor, Tensor, Tensor]


class CosmosFSQAdapter(GivenDtypeAdapter, FSQAdapter):
    """Replaces FSQuantizer of github.com/NVIDIA/Cosmos-Tokenizer (no release; tested with a stand-in).

    z [B, D, H, W] → (indices [B, H, W], quantized [B, D, H, W], loss [B, 1, 1, 1]). z can also be a video
    [B, D, T, H, W], whose loss is [B, 1, 1, 1, W], or a sequence [B, N, D] with a loss [B, 1, 1, 1]. The loss is
    that of the new quantizer, the same for each sample; the original's is zero. Indices are int64; the original's
    are int32. With `keep_num_codebooks_dim` they have one more axis, and with `num_codebooks` one of that length:
    a quantizer for each codebook ("grouped").

    `quantized` has the dtype `dtype`, to which Cosmos' models assign, and the loss that of z. A new "fsq" gets the
    original's levels. With `keep_codebook` codes and indices are the original's, except where a channel is within
    rounding of the edge between two levels, and projections are copied.

    Not supported: codes before the projection out (`project_out=False`). LFQuantizer of the same repository, which
    fails at its first call, has no contract.

    Source: NVIDIA: Cosmos World Foundation Model Platform for Physical AI, 2025 (arXiv 2501.03575);
    `cosmos_tokenizer/modules/quantizers.py`.
    """

    contract: ClassVar[str] = "cosmos_fsq"
    classes: ClassVar[tuple[str, ...]] = ("FSQuantizer",)
    positions: ClassVar[int] = 2
    reference: ClassVar[str] = "fsq"
    omitted_methods: ClassVar[tuple[str, ...]] = ("bound", "quantize")

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        levels = tuple(original._levels.tolist())
        groups = group_options(original, len(levels))
        return QuantizerSpec(original.dim, original.codebook_size, -1, options={"levels": levels}, **groups)

    @classmethod
    def example(cls, original: Any, spec: QuantizerSpec) -> Tensor:
        """Images [B, D, H, W]."""
        return super().example(original, spec._replace(channel_dim=1))

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        """The calls of Cosmos' image tokenizers, and the same for a video."""
        output = module(z)
        yield "forward", output
        yield "indices_to_codes", module.indices_to_codes(output[0])
        yield "forward of a video", module(z[:, :, None])

    def forward(self, z: Tensor) -> Encoded:  # type: ignore[override]
        """See the class."""
        quantized, indices = FSQAdapter.forward(self, z)
        assert indices is not None  # the original always returns them
        assert self.loss is not None  # that of this forward
        return indices, quantized.to(self.dtype), loss_of_samples(self.loss, z)


def loss_of_samples(loss: Tensor, z: Tensor) -> Tensor:
    """A loss [] as Cosmos' quantizers return it for z: [B, 1, 1, 1], or [B, 1, 1, 1, W] for a video."""
    return loss.to(z.dtype).expand(len(z), 1, 1, 1, *z.shape[4:])
