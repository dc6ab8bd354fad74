"""A method whose class fixes the distance."""

from quantizers import VectorQuantizer
from quantizers.core.arguments.checks import Size, Weight
from quantizers.core.arguments.options import checked
from quantizers.core.registry import register


@register("trial_cosine")
class CosineVectorQuantizer(VectorQuantizer):
    """VQ on the unit sphere: k = argmax_j z·e_j / (‖z‖ ‖e_j‖), value e_k / ‖e_k‖."""

    @checked
    def __init__(
        self,
        dim: Size,
        codebook_size: Size,
        *,
        code_dim: Size | None = None,
        channel_dim: int = -1,
        commitment_weight: Weight = 0.25,
    ) -> None:
        super().__init__(
            dim,
            codebook_size,
            code_dim=code_dim,
            channel_dim=channel_dim,
            distance="cosine",
            commitment_weight=commitment_weight,
        )
