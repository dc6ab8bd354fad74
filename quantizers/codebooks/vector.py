"""Vector quantization with a learned codebook."""

from collections.abc import Mapping
from typing import ClassVar, Unpack

import torch
from torch import Tensor, nn

from quantizers.clustering.kmeans import kmeans
from quantizers.codebooks.nearest import NearestCodeQuantizer
from quantizers.codebooks.options import VQOptions
from quantizers.core.arguments.checks import Size
from quantizers.core.arguments.options import checked
from quantizers.core.codebook import check_codes, init_codes_
from quantizers.core.parallel import ProcessGroup
from quantizers.core.registry import register
from quantizers.core.state.writing import write, write_rows


@register("rotation_vq", gradient="rotation")
@register("vq")
class VectorQuantizer(NearestCodeQuantizer):
    """VQ: nearest code, with a codebook that is a parameter and moves towards its vectors by a loss.

    Use it as the baseline that every other method refines; with gradient="rotation" it is the rotation trick.

    van den Oord, Vinyals, Kavukcuoglu: Neural Discrete Representation Learning, 2017 (arXiv 1711.00937):

        k = argmin_j ‖z − e_j‖                                                                   (1)
        value e_k                                                                                (2)
        loss = codebook_weight · mean (sg[z] − e_k)² + commitment_weight · mean (z − sg[e_k])²   (3)

    The gradient of z is the gradient of e_k (§3.2). The first term moves the codes, the second one the encoder.
    The paper sums over channels; here both terms are means over vectors and channels, so that the weights mean
    the same at any D.

    The rotation trick is from Fifty et al. 2024 (arXiv 2410.06424), registered as "rotation_vq".

    Example:
        >>> quantizer = VectorQuantizer(dim=16, codebook_size=64)
        >>> quantized, indices, loss = quantizer(torch.randn(2, 10, 16))
        >>> quantized.shape, indices.shape, loss.shape
        (torch.Size([2, 10, 16]), torch.Size([2, 10]), torch.Size([]))
        >>> torch.equal(quantizer.decode(indices), quantized)
        True

    Args:
        dim: channels of x. codebook_size: K ≥ 1.
        code_dim: channels of a code, default `dim`. channel_dim: axis of x's channels.
        distance: "euclidean", "cosine" for codes on the unit sphere, or "angle" for a search by angle alone.
        gradient: "straight_through", "rotation", "reflection" or a function (z, codes) → [..., D].
        commitment_weight, codebook_weight: see equation 3.
        decoder_gradient: also pass the decoder's gradient to the chosen codes.
        regularizers: losses on vectors and codes, added to the loss, see `quantizers.regularizers`.

    Shapes: x [..., dim] → quantized [..., dim], indices [...], loss [].

    Raises: ValueError for a size below 1 or an unknown distance or gradient.
    """

    # For checkpoints of quantizers with an nn.Embedding.
    renamed: ClassVar[Mapping[str, str]] = {"embedding.weight": "embedding"}

    @checked
    def __init__(self, dim: Size, codebook_size: Size, **options: Unpack[VQOptions]) -> None:
        super().__init__(dim, codebook_size, **options)
        self.embedding = nn.Parameter(torch.empty(codebook_size, self.code_dim))

    def reset_parameters(self) -> None:
        """Draw the codes from N(0, 1/code_dim), see `init_codes_`."""
        init_codes_(self.embedding)

    @torch.no_grad()
    def set_codebook(self, codes: Tensor) -> None:
        """Replace all codes with `codes` [K, code_dim]. Raises: ValueError for another shape."""
        write(self, "embedding", check_codes(codes, self.codebook_size, self.code_dim))

    def _initialize(self, z: Tensor, process_group: ProcessGroup) -> None:
        self.set_codebook(kmeans(z, self.codebook_size, distance=self.distance, process_group=process_group))

    @property
    def has_table(self) -> bool:
        """True."""
        return True

    @torch.no_grad()
    def move_codes(self, positions: Tensor, targets: Tensor, shares: Tensor) -> None:
        """See `LearnedCodes`; with distance="cosine" the moved codes have unit norm."""
        codes = torch.lerp(
            self._codebook()[positions], targets.to(self.embedding), shares.to(self.embedding)[:, None]
        )
        write_rows(self, "embedding", positions, self._to_value_space(codes))

    def _codes(self) -> Tensor:
        return self.embedding
