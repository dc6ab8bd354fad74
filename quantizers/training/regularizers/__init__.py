"""Losses that any learned codebook takes, beside its own: `VectorQuantizer(..., regularizers=[Entropy(0.1)])`.

Each is a small class that a quantizer calls, already weighted, and a plain function beside it.
"""

from quantizers.core.regularizer import Regularizer
from quantizers.training.regularizers.entropy import Entropy, entropy_loss
from quantizers.training.regularizers.orthogonality import Orthogonality, orthogonality_loss
from quantizers.training.regularizers.wasserstein import Wasserstein, wasserstein_loss

__all__ = [
    "Entropy",
    "Orthogonality",
    "Regularizer",
    "Wasserstein",
    "entropy_loss",
    "orthogonality_loss",
    "wasserstein_loss",
]
