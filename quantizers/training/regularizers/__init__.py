"""Additional losses for any learned codebook: `VectorQuantizer(..., regularizers=[Entropy(0.1)])`.

Each of them is a function, and a small class that a quantizer calls and that contains the weight.
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
