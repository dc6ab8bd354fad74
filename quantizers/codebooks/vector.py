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
    """VQ: the codebook is a parameter, moved towards its vectors by a loss.

    van den Oord, Vinyals, Kavukcuoglu: Neural Discrete Representation Learning, 2017 (arXiv 1711.00937),
    equations 1 to 3: k = argmin_j ‖z − e_j‖, value e_k, the gradient of z is the gradient of e_k, and
    loss = codebook_weight · mean (sg[z] − e_k)² + commitment_weight · mean (z − sg[e_k])². The paper sums over
    channels; here both terms are means over vectors and channels, so that the weights mean the same at any D.

    With gradient="rotation" this is the rotation trick (Fifty et al. 2024, arXiv 2410.06424), registered as
    "rotation_vq".

    Args:
        dim: channels of x. codebook_size: K ≥ 1.
        code_dim: channels of a code, default `dim`. channel_dim: axis of x's channels.
        distance: "euclidean", "cosine" for codes on the unit sphere, or "angle" for a search by angle alone.
        gradient: "straight_through", "rotation", "reflection" or a function (z, codes) → [..., D].
        commitment_weight, codebook_weight: see above.
        decoder_gradient: also pass the decoder's gradient to the chosen codes.
        regularizers: losses on vectors and codes that are added, see `quantizers.regularizers`.

    Shapes: x [..., dim] → quantized [..., dim], indices [...], loss [].

    Raises: ValueError for a size below 1 or an unknown distance or gradient.
    """

    # Of quantizers that hold their codes in an nn.Embedding.
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
        """Replace all codes by `codes` [K, code_dim]. Raises: ValueError for another shape."""
        write(self, "embedding", check_codes(codes, self.codebook_size, self.code_dim))

    def _initialize(self, z: Tensor, process_group: ProcessGroup) -> None:
        self.set_codebook(kmeans(z, self.codebook_size, distance=self.distance, process_group=process_group))

    @property
    def has_table(self) -> bool:
        """True."""
        return True

    @torch.no_grad()
    def move_codes(self, places: Tensor, targets: Tensor, shares: Tensor) -> None:
        """See Quantizer; codes for distance="cosine" are of unit norm afterwards."""
        codes = torch.lerp(
            self._codebook()[places], targets.to(self.embedding), shares.to(self.embedding)[:, None]
        )
        write_rows(self, "embedding", places, self._to_value_space(codes))

    def _codes(self) -> Tensor:
        return self.embedding
