"""Codes that point in different directions."""

import torch
from torch import Tensor

from quantizers.core.arguments.checks import Weight
from quantizers.core.arguments.configurable import configurable
from quantizers.core.arguments.options import checked
from quantizers.core.gradients import exact_value, refined
from quantizers.core.regularizer import Regularizer
from quantizers.kernels.dispatch import without_autocast
from quantizers.kernels.vectors import normalize


def orthogonality_loss(codes: Tensor) -> Tensor:
    """‖Ê Êᵀ − I‖²_F / K², where Ê are the codes divided by their norms: zero for codes at right angles.

    Shin, Lee, Lee, Lyou, Lee, Choi: Exploration into Translation-Equivariant Image Quantization, 2021
    (arXiv 2112.00384), equation (2). Computed over D × D, as

        ‖Ê Êᵀ − I‖²_F = tr Ê Êᵀ Ê Êᵀ − 2 tr Ê Êᵀ + K = ‖Êᵀ Ê‖²_F − 2 ‖Ê‖²_F + K,

    so that no K × K matrix is made. With K > D it cannot reach zero: the smallest value is 1/D − 1/K.

    Args: codes: [K, D]. A zero code has no direction: it counts as at right angles to all others.

    Returns: 0-d, in the codes' dtype.
    """
    unit, count = normalize(codes), codes.shape[0]
    # The gradient of ‖ÊᵀÊ‖² is 4 Ê ÊᵀÊ. As a constant, its product is not autograd's to cast under autocast.
    with torch.no_grad(), without_autocast(unit.device):
        gram = unit.T @ unit / count  # divided first: nothing here is of the size of K²
        pull = 4 / count * (unit @ gram)
    squares = refined(exact_value((pull * unit).sum(), gram.square().sum()), _squares, unit)
    return squares - 2 * (unit / count).square().sum() + 1 / count


def _squares(unit: Tensor) -> Tensor:
    """‖Êᵀ Ê‖²_F / K², for a derivative of its derivative."""
    with without_autocast(unit.device):
        return (unit.T @ unit / unit.shape[0]).square().sum()


@configurable("weight")
class Orthogonality(Regularizer):
    """weight · ‖Ê Êᵀ − I‖²_F / K² of the codes alone, see `orthogonality_loss`; zero for a batch without vectors.

    Of codes that are averages, and so get no gradient, it moves nothing: EMAVectorQuantizer refuses it.

    Args: weight: ≥ 0; 10 in the paper.
    """

    @checked
    def __init__(self, weight: Weight = 10.0) -> None:
        super().__init__(weight, moves="codes")

    def __call__(self, z: Tensor, valid: Tensor, codes: Tensor) -> Tensor:
        """See Regularizer; z gets no gradient."""
        return self.weight * orthogonality_loss(codes.to(z.dtype)).where(valid.any(), 0.0)
