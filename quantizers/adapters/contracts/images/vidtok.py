"""VidTok's FSQ in diffusers: FSQRegularizer."""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.contracts.vector_quantize_pytorch.codebook_axis import group_options
from quantizers.adapters.contracts.vector_quantize_pytorch.fsq import FSQAdapter
from quantizers.core.base import Quantizer


class VidTokAdapter(FSQAdapter):
    """Replaces FSQRegularizer of diffusers (tested with 0.42).

    z [B, D, T, H, W] → (quantized [B, D, T, H, W], indices [B, T, H, W]); also images [B, D, H, W], and
    sequences [B, N, D]. `indices_to_codes(indices)` returns vectors; those of three axes or more have their
    channels on axis 1.

    Indices are int64; the original's are int32. With `keep_num_codebooks_dim` they have one more axis. The model
    projects out what `indices_to_codes` has projected out, which is right for the original, whose z has as many
    channels as there are levels. So `project_out` is the identity here.

    The contract has no loss. To train a quantizer that has one, add the attribute `loss`, that of the last
    forward:

        video_out = model(video).sample
        loss = reconstruction_loss(video_out, video) + model.regularization.loss

    A new "fsq" gets the original's levels. With `keep_codebook` projections are copied, if there are some; codes
    and indices are then the original's, except where a channel is within rounding of the edge between two levels.

    Not supported: several codebooks, unless the original has some, because the model reads indices of four axes;
    codes that are not projected out (`project_out=False`); FSQRegularizer of the repository microsoft/VidTok,
    whose forward returns a dict.

    Source: Tang et al.: VidTok: A Versatile and Open-Source Video Tokenizer, 2024 (arXiv 2412.13061);
    `models/autoencoders/autoencoder_vidtok.py` in diffusers.

    Raises: ValueError for a quantizer with several codebooks.
    """

    contract: ClassVar[str] = "vidtok"
    classes: ClassVar[tuple[str, ...]] = ("FSQRegularizer",)
    positions: ClassVar[int] = 3
    reference: ClassVar[str] = "fsq"
    omitted_methods: ClassVar[tuple[str, ...]] = ("quantize",)

    def __init__(self, quantizer: Quantizer, original: nn.Module) -> None:
        if quantizer.composed and getattr(original, "num_codebooks", 1) == 1:
            raise ValueError(
                f"quantizer is {type(quantizer).__name__}, which has {quantizer.num_codebooks} indices per "
                "vector, but this model reads indices [B, T, H, W]; expected a quantizer with one codebook"
            )
        super().__init__(quantizer, original)

    @classmethod
    def example(cls, original: Any, spec: QuantizerSpec) -> Tensor:
        """A video, [2, D, 4, 4, 4]; for several codebooks a sequence, because the original raises for videos."""
        return torch.randn(2, spec.dim, 4, 4, 4) if original.num_codebooks == 1 else torch.randn(2, 64, spec.dim)

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        """The calls that the model makes."""
        quantized, indices = module(z)
        yield "forward", (quantized, indices)
        rows = indices.reshape(len(z), -1, 1) if z.ndim == 5 else indices
        yield "indices_to_codes", module.indices_to_codes(rows)

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        if hasattr(original, "entropy_loss_weight"):
            raise AttributeError("this is FSQRegularizer of microsoft/VidTok, whose forward returns a dict")
        levels = tuple(original._levels.tolist())
        size = int(original._levels.long().prod())
        groups = group_options(original, original.codebook_dim)
        return QuantizerSpec(original.dim, size, cls.channel_dim, options={"levels": levels}, **groups)

    def indices_to_codes(self, indices: Tensor, project_out: bool = True) -> Tensor:
        """See the class. Raises: ValueError for project_out=False, if the quantizer projects."""
        if not (project_out or isinstance(self.quantizer.project_out, nn.Identity)):
            raise ValueError("project_out is False, which this contract does not support; expected True")
        return super().indices_to_codes(indices)

    @property
    def project_out(self) -> nn.Module:
        """The identity: see the class."""
        return nn.Identity()
