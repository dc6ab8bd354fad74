"""A method whose class fixes the distance."""

from typing import TypedDict

from typing_extensions import Unpack

from quantizers import VectorQuantizer
from quantizers.codebooks.options import ChannelDim, CodeDim, CommitmentWeight, Regularizers
from quantizers.core.arguments.checks import Size
from quantizers.core.arguments.options import checked
from quantizers.core.registry import register


class CosineOptions(TypedDict, total=False):
    """The options of VQ that make sense on the unit sphere."""

    code_dim: CodeDim
    channel_dim: ChannelDim
    regularizers: Regularizers
    commitment_weight: CommitmentWeight


@register("trial_cosine")
class CosineVectorQuantizer(VectorQuantizer):
    """VQ on the unit sphere: k = argmax_j z·e_j / (‖z‖ ‖e_j‖), value e_k / ‖e_k‖."""

    @checked
    def __init__(self, dim: Size, codebook_size: Size, **options: Unpack[CosineOptions]) -> None:
        super().__init__(dim, codebook_size, distance="cosine", **options)
