"""An entropy loss, with which each vector decides for one code and all codes are chosen equally often."""

from torch import Tensor

from quantizers.core.arguments.checks import FinitePositive, Weight
from quantizers.core.arguments.configurable import configurable
from quantizers.core.arguments.options import checked
from quantizers.core.entropy import distance_logits, entropy_of_logits
from quantizers.core.regularizer import Regularizer


def entropy_loss(
    z: Tensor, codes: Tensor, valid: Tensor, temperature: float = 0.01, diversity: float = 1.0
) -> Tensor:
    """Compute mean_n H(p_n) − diversity · H(p̄) in nats, p_n = softmax_k(−‖z_n − e_k‖² / T), p̄ = mean_n p_n.

    The first term draws each vector to one code, the second spreads the vectors over all codes.

        >>> import torch
        >>> from quantizers.training.regularizers import entropy_loss
        >>> codes = torch.eye(4)
        >>> entropy_loss(codes, codes, valid=torch.ones(4, dtype=torch.bool))  # −log 4: certain, and equally used
        tensor(-1.3863)

    Source: Jansen et al.: Coincidence, Categorization, and Consolidation: Learning to Recognize Sounds with
    Minimal Supervision, 2020 (arXiv 1911.05894); with a codebook in MaskGIT's tokenizer (Chang et al. 2022, arXiv
    2202.04200), and for sign bits in Yu et al. 2023 (arXiv 2310.05737).

    No N × K matrix is formed, and no probability is clamped, see `core.entropy`. The mean code is subtracted from
    vectors and codes first, which changes no distance and preserves the digits. Coordinates so large that ‖e‖²/T
    overflows float32 (about 10¹⁷ for T = 0.01) are clamped, without a gradient.

    Args:
        z: [N, D], float32 or float64.
        codes: [K, D].
        valid: [N] bool, the rows of z that count.
        temperature: T > 0, in squared units of z.
        diversity: ≥ 0, the weight of the second term.

    Returns: 0-d, float32 (float64 if an input is float64), between −diversity · log K and log K; zero without a
    valid row.
    """
    return entropy_of_logits(*distance_logits(z, codes, temperature), valid, diversity)


@configurable("weight", "temperature", "diversity")
class Entropy(Regularizer):
    """Draw each vector to one code, and spread all vectors over the codes: weight · `entropy_loss`.

        >>> import quantizers
        >>> regularizer = quantizers.regularizers.Entropy(0.02, temperature=0.5)
        >>> quantizer = quantizers.VectorQuantizer(4, codebook_size=16, regularizers=[regularizer])

    In data parallel, p̄ is the mean over the batch of one rank. DDP averages the gradients of the ranks, which
    differ from the gradient of the entropy over all ranks: H is concave, so a rank with a small batch is pushed
    to spread its vectors more.

    Args:
        weight: ≥ 0, the weight of the loss.
        temperature: T > 0, see `entropy_loss`.
        diversity: ≥ 0, the weight of the second term.

    Raises: ValueError for a number outside these ranges.
    """

    @checked
    def __init__(
        self, weight: Weight = 0.1, *, temperature: FinitePositive = 0.01, diversity: Weight = 1.0
    ) -> None:
        super().__init__(weight)
        self.temperature = temperature
        self.diversity = diversity

    def __call__(self, z: Tensor, valid: Tensor, codes: Tensor) -> Tensor:
        """See Regularizer."""
        return self.weight * entropy_loss(z, codes, valid, self.temperature, self.diversity)
