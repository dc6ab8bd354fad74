"""Optimized product quantization: a rotation in front of another quantizer."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Self

from quantizers.composite.composed import check_component, has_codes
from quantizers.composite.enclosing import EnclosingQuantizer
from quantizers.composite.fitted_rotation import fit_rotation
from quantizers.core.arguments.checks import Size, check_tensor
from quantizers.core.arguments.options import checked
from quantizers.core.base import Quantizer
from quantizers.core.layout import Rows
from quantizers.core.method_calls import MethodCall, through_forward
from quantizers.core.output import QuantizerOutput
from quantizers.core.parallel import ProcessGroup
from quantizers.core.registry import register
from quantizers.core.state.initialization import SelfInitialized
from quantizers.kernels.common.arguments import check_floating
from quantizers.kernels.common.dispatch import without_autocast

SLACK = 16  # roundings of float32 per channel that R Rᵀ may be away from I, as after a factorization in float32


class Rotation(SelfInitialized):
    """z ↦ Rz for rows z [N, dim], in their dtype, with an orthogonal buffer R [dim, dim]."""

    weight: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.empty(dim, dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set R to the identity."""
        nn.init.eye_(self.weight)

    def forward(self, rows: Tensor) -> Tensor:
        return F.linear(rows, self.weight.to(rows.dtype))


class RotatedQuantizer(EnclosingQuantizer):
    """A quantizer of rotated vectors: rotate, quantize with the quantizer inside, and rotate back.

    Product quantization, FSQ and binary codes quantize groups of channels separately, so that their error depends
    on the basis. A rotation can remove the correlations between the groups and give all groups about the same
    variance. For a quantizer that compares whole vectors by Euclidean distance, such as "vq", it changes nothing.

        y = Rz, value Rᵀ Q(y), loss that of Q for y

    R [dim, dim] is orthogonal, the identity at first, with which everything is that of Q, bit for bit. No gradient
    changes it. `initialize_from` and `warm_start` fit it together with the codes, in alternation, and
    `set_rotation` sets it:

        1. R from the covariance of z, see `clustering.rotations.balanced_rotation`, if Q has groups, else I
        2. Q is initialized from the vectors Rz
        3. each code ← the mean of the vectors Rz that choose it
        4. R ← argmin Σ ‖Rz − q‖² over orthogonal R, with the codes q of step 3; 3 and 4 again, 20 times in all

    Neither 3 nor 4 increases Σ ‖Rz − q‖² = Σ ‖z − value‖², for groups of VQ with Euclidean distance. Q with codes
    that are no means (SimVQ, IBQ) is initialized again instead, once, with the last R. For "lfq", whose codes are
    vertices of a cube, step 4 alone is iterative quantization (ITQ, Gong and Lazebnik 2011).

    The decoder's gradient g is rotated, passed on by Q, and rotated back. With a straight-through Q, z gets RᵀRg,
    which is g up to rounding. `codebook` has the codes of Q, in rotated coordinates.

    Example:
        >>> import torch, quantizers
        >>> quantizer = quantizers.create("opq", 16, codebook_size=8, num_groups=4)
        >>> x = torch.randn(500, 4) @ torch.randn(4, 16)  # correlated channels
        >>> quantizer.initialize_from(x)
        >>> quantized, indices, loss = quantizer(x)
        >>> indices.shape, torch.allclose(quantized, quantizer.decode(indices))
        (torch.Size([500, 4]), True)

    Args:
        dim: channels of x and of `quantizer`.
        quantizer: any quantizer of single vectors with its channels last.
        channel_dim: axis of x's channels.

    Shapes: x [..., dim] → quantized [..., dim], indices and loss as those of `quantizer`.

    Raises: ValueError for a quantizer of other channels, of maps, or without codes; TypeError for something other
        than a quantizer.

    Source: Ge, He, Ke, Sun: Optimized Product Quantization for Approximate Nearest Neighbor Search, CVPR 2013.
    """

    @checked
    def __init__(self, dim: Size, quantizer: Quantizer, *, channel_dim: int = -1) -> None:
        if check_component(quantizer).dim != dim:
            raise ValueError(
                f"quantizer has dim={quantizer.dim}, expected dim={dim}: a rotation keeps the channels"
            )
        super().__init__(quantizer, channel_dim=channel_dim)
        self.project_in, self.project_out = Rotation(dim), Rotation(dim)

    @classmethod
    def _around(cls, quantizer: Quantizer, **options: Any) -> Self:
        return cls(quantizer.dim, quantizer, **options)

    @property
    def rotation(self) -> Tensor:
        """R [dim, dim]. Set it with `set_rotation`."""
        return self.project_in.get_buffer("weight")

    @torch.no_grad()
    def set_rotation(self, rotation: Tensor) -> None:
        """Set R, a rotation or a reflection. The codes stay what they are in rotated coordinates.

        Args: rotation: R [dim, dim], of a floating dtype.

        Raises: TypeError for another dtype, or something other than a tensor; ValueError for another shape, values
            that are not finite, and a matrix that is not orthogonal: a value of R Rᵀ − I beyond 16 · dim roundings
            of float32 (2⁻²⁴).
        """
        check_floating(rotation=check_tensor("rotation", rotation))
        if rotation.shape != (self.dim, self.dim):
            raise ValueError(f"rotation has shape {tuple(rotation.shape)}, expected {(self.dim, self.dim)}")
        matrix = rotation.detach().cpu().double()
        if not matrix.isfinite().all():
            raise ValueError("rotation has values that are not finite, expected none")
        error = float((matrix @ matrix.T - torch.eye(self.dim, dtype=matrix.dtype, device="cpu")).abs().max())
        if error > SLACK * self.dim * 2.0**-24:
            raise ValueError(
                f"rotation is not orthogonal: R Rᵀ − I has a value of {error:.2g}, expected at most "
                f"{SLACK * self.dim * 2.0**-24:.2g}"
            )
        self.rotation.copy_(rotation)
        self.project_out.get_buffer("weight").copy_(rotation.T)

    @property
    def initializes_from_data(self) -> bool:
        """True: `initialize_from` sets the rotation."""
        return True

    @through_forward
    @torch.no_grad()
    def initialize_rows(self, rows: Rows, process_group: ProcessGroup) -> None:
        """Fit the rotation and the codes; see `initialize_from`. If the codes inside are frozen, both stay."""
        self._check_device("x", rows.vectors)
        if not self.frozen and not self.quantizer.frozen:
            with without_autocast(rows.vectors.device):
                inside, z = check_component(self.quantizer), rows.vectors[rows.valid]
                self.set_rotation(fit_rotation(inside, z, process_group))

    def _quantize(self, rows: Rows, **options: Any) -> QuantizerOutput:
        output: QuantizerOutput = self.quantizer(MethodCall(_quantize_inside, (rows, options), {}))
        return output

    def _rows_still_valid(self, valid: Tensor, indices: Tensor) -> Tensor:
        return valid & has_codes(indices)  # a vector may overflow float32 in the quantizer inside


def _quantize_inside(quantizer: Quantizer, rows: Rows, options: dict[str, Any]) -> QuantizerOutput:
    return quantizer._quantize_projected(rows, lambda projected: quantizer._quantize(projected, **options))


register("rotated", RotatedQuantizer.from_options)
