"""Codes that point in different directions."""

import torch
from torch import Tensor

from quantizers.core.arguments.checks import Weight
from quantizers.core.arguments.configurable import configurable
from quantizers.core.arguments.options import checked
from quantizers.core.gradients import exact_value, refined
from quantizers.core.regularizer import Regularizer
from quantizers.kernels.common.dispatch import without_autocast
from quantizers.kernels.common.vectors import normalize


def orthogonality_loss(codes: Tensor) -> Tensor:
    """Compute ‖Ê Êᵀ − I‖²_F / K², where Ê are the codes divided by their norms.

    The loss is zero for codes at right angles to each other. With K > D it cannot reach zero: its minimum is then
    1/D − 1/K.

        >>> import torch
        >>> from quantizers.training.regularizers import orthogonality_loss
        >>> orthogonality_loss(torch.eye(4)), orthogonality_loss(torch.ones(4, 4))
        (tensor(0.), tensor(0.7500))

    Source: Shin, Lee, Lee, Lyou, Lee, Choi: Exploration into Translation-Equivariant Image Quantization, 2021
    (arXiv 2112.00384), equation (2). It is computed from a D × D matrix as

        ‖Ê Êᵀ − I‖²_F = tr Ê Êᵀ Ê Êᵀ − 2 tr Ê Êᵀ + K = ‖Êᵀ Ê‖²_F − 2 ‖Ê‖²_F + K,

    so that no K × K matrix is formed.

    Args: codes: [K, D]. A zero code, which has no direction, counts as at right angles to all others.

    Returns: 0-d, in the dtype of the codes.
    """
    unit, count = normalize(codes), codes.shape[0]
    # The gradient of ‖ÊᵀÊ‖² is 4 Ê ÊᵀÊ. Computed here as a constant, it is not cast by autocast.
    with torch.no_grad(), without_autocast(unit.device):
        gram = unit.T @ unit / count  # divided first, so that no entry grows like K²
        pull = 4 / count * (unit @ gram)
    squares = refined(exact_value((pull * unit).sum(), gram.square().sum()), _squares, unit)
    return squares - 2 * (unit / count).square().sum() + 1 / count


def _squares(unit: Tensor) -> Tensor:
    """‖Êᵀ Ê‖²_F / K², for second derivatives."""
    with without_autocast(unit.device):
        return (unit.T @ unit / unit.shape[0]).square().sum()


@configurable("weight")
class Orthogonality(Regularizer):
    """Push the codes toward right angles: weight · `orthogonality_loss`, zero for a batch without vectors.

        >>> import quantizers
        >>> regularizer = quantizers.regularizers.Orthogonality(1.0)
        >>> quantizer = quantizers.VectorQuantizer(4, codebook_size=16, regularizers=[regularizer])

    EMAVectorQuantizer refuses it: its codes are moving averages and get no gradient.

    Args: weight: ≥ 0, the weight of the loss; 10 in the paper.

    Raises: ValueError for a weight that is negative or not finite.
    """

    @checked
    def __init__(self, weight: Weight = 10.0) -> None:
        super().__init__(weight, moves="codes")

    def __call__(self, z: Tensor, valid: Tensor, codes: Tensor) -> Tensor:
        """See Regularizer; z gets no gradient."""
        return self.weight * orthogonality_loss(codes.to(z.dtype)).where(valid.any(), 0.0)
