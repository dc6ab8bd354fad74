"""Spherical lattice quantization: the codes are a shell of a lattice, and nothing is learned."""

from typing import Literal

import torch
from torch import Tensor

from quantizers.codebooks.lattices import e8_points, leech_points
from quantizers.codebooks.nearest import NearestCodeQuantizer
from quantizers.core.arguments.checks import Size, Weight
from quantizers.core.arguments.options import checked
from quantizers.core.gradients import Gradient
from quantizers.core.registry import register

SHELLS = {"leech": leech_points, "e8": e8_points}


@register("leech")
class SphericalLattice(NearestCodeQuantizer):
    """Spherical Leech quantization: the nearest of the 196,560 minimal vectors of the Leech lattice.

    Use it for a large codebook without codebook collapse: nothing is learned, and no loss is needed, since the
    codes are spread evenly over the sphere and none of them can die.

    Zhao et al.: Spherical Leech Quantization for Visual Tokenization and Generation, 2025 (arXiv 2512.14697). With
    the minimal vectors Λ of the lattice, all of one length:

        z' = z/‖z‖
        k = argmin_j ‖z' − λ_j/‖λ_j‖‖, value λ_k/‖λ_k‖

    An index has log₂ 196560 ≈ 17.6 bits for 24 channels. Where dim is not 24, one learned linear layer projects in
    and another one out. The points are generated from the Golay code; see `quantizers.codebooks.lattices`, which
    has them as tensors as well.

    Example:
        >>> quantizer = SphericalLattice(dim=8, lattice="e8")
        >>> quantized, indices, loss = quantizer(torch.randn(100, 8))
        >>> quantizer.codebook_size, torch.equal(quantizer.decode(indices), quantized), loss.item()
        (240, True, 0.0)

    Args:
        dim: channels of x.
        codebook_size: may be left out, since the lattice determines it: 196560 for "leech", 240 for "e8".
        lattice: "leech" with 24 channels, or "e8" with 8, whose codebook is small.
        channel_dim: axis of x's channels.
        gradient: "straight_through", "rotation", "reflection" or a function (z, codes) → [..., D].
        commitment_weight: weight of mean (z' − λ_k/‖λ_k‖)²; 0 as in the paper.

    State: points int8 [K, code_dim], the lattice's vectors times a number that makes them integers.

    Shapes: x [..., dim] → quantized [..., dim], indices [...], loss [].

    Raises: ValueError for another codebook_size than the lattice's, an unknown lattice or gradient.
    """

    points: Tensor

    @checked
    def __init__(
        self,
        dim: Size,
        codebook_size: Size | None = None,
        *,
        lattice: Literal["leech", "e8"] = "leech",
        channel_dim: int = -1,
        gradient: str | Gradient = "straight_through",
        commitment_weight: Weight = 0.0,
    ) -> None:
        points = SHELLS[lattice]()
        if codebook_size not in (None, len(points)):
            raise ValueError(
                f"codebook_size is {codebook_size}, expected None or {len(points)}, the size of this shell of "
                f"lattice={lattice!r}"
            )
        super().__init__(
            dim,
            len(points),
            code_dim=points.shape[1],
            channel_dim=channel_dim,
            distance="cosine",
            gradient=gradient,
            commitment_weight=commitment_weight,
        )
        self.lattice = lattice
        self.register_buffer("points", torch.empty(points.shape, dtype=torch.int8))

    def reset_parameters(self) -> None:
        """Write the points of the lattice."""
        self.points.copy_(SHELLS[self.lattice]())

    @property
    def _index_rule(self) -> dict[str, object]:
        return {**super()._index_rule, "lattice": self.lattice}

    def _codes(self) -> Tensor:
        return self.points.to(self._dtype)
