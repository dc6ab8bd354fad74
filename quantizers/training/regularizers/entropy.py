"""An entropy loss, with which each vector decides for one code and all codes are chosen equally often."""

import functools
import math

import torch
from torch import Tensor

from quantizers.core.arguments.checks import FinitePositive, Weight
from quantizers.core.arguments.configurable import configurable
from quantizers.core.arguments.options import checked
from quantizers.core.gradients import refined
from quantizers.core.regularizer import Regularizer
from quantizers.kernels.common.vectors import compute_dtype
from quantizers.kernels.soft.mean_softmax import log_mean_softmax
from quantizers.kernels.soft.operation import soft_codes

RAREST = 2000.0  # nats; in float64, a probability of e^−750 is already zero


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

    No N × K matrix is formed, and no probability is clamped. With the usual clamp p̄_k ≥ 10⁻⁵, a codebook of more
    than 10⁵ codes that is used evenly would get no gradient. The two terms are computed as follows:

    - H(p_n) = log K − KL(p_n ‖ uniform), equation (3) in kernels/soft/README.md.
    - H(p̄) = −Σ_k p̄_k log p̄_k has the differential −Σ_k dp̄_k (log p̄_k + 1), and Σ_k dp̄_k = 0 because p̄ sums to
      one. So dH(p̄) = Σ_k v_k dp̄_k = d mean_n Σ_k p_nk v_k with v_k = −log p̄_k held constant. That mean over n of
      softmax-weighted values v is also H(p̄) itself: one softmax over K gives both the value and its gradient.

    The mean code is subtracted from vectors and codes first, which changes no distance and preserves the digits.
    Coordinates so large that ‖e‖²/T overflows float32 (about 10¹⁷ for T = 0.01) are clamped, without a gradient.

    Args:
        z: [N, D], float32 or float64.
        codes: [K, D].
        valid: [N] bool, the rows of z that count.
        temperature: T > 0, in squared units of z.
        diversity: ≥ 0, the weight of the second term.

    Returns: 0-d, float32 (float64 if an input is float64), between −diversity · log K and log K; zero without a
    valid row.
    """
    z, keys, bias = distance_logits(z, codes, temperature)
    log_mean = log_mean_softmax(z.detach(), keys.detach(), bias.detach(), valid)
    # p_nk ≤ N p̄_k: where v is clamped, it is multiplied by a p_nk that is zero.
    rarity = (-log_mean).clamp(max=RAREST)
    soft, _, divergence = soft_codes(z, keys, bias, rarity[:, None], z.new_ones(()))
    share = valid.to(z.dtype) / valid.sum().clamp(min=1)
    loss = (share * (math.log(codes.shape[0]) - divergence - diversity * soft[:, 0])).sum()
    return refined(loss, functools.partial(_entropies, share=share, diversity=diversity), z, keys, bias)


def _entropies(z: Tensor, keys: Tensor, bias: Tensor, share: Tensor, diversity: float) -> Tensor:
    """The loss by its definition, with all N × K probabilities, for second derivatives."""
    log_p = (z.double() @ keys.double().T + bias.double()).log_softmax(-1)
    p = log_p.exp()
    mean = share.double() @ p
    mean_entropy = -(mean * mean.where(mean > 0, 1.0).log()).sum()
    return (-(share * (p * log_p).sum(-1)).sum() - diversity * mean_entropy).to(z.dtype)


def distance_logits(z: Tensor, codes: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """z [N, D], keys [K, D] and bias [K] with −‖z − e‖²/T = z·key + bias, up to a constant a row; all finite."""
    dtype = compute_dtype(z, codes)
    z, codes = z.to(dtype), codes.to(dtype)
    centre = (codes.detach() / codes.shape[0]).sum(0)
    largest = torch.finfo(dtype).max * min(temperature, 1.0) / codes.shape[1]
    limit = math.sqrt(largest) / 4
    z, codes = ((vectors - centre).clamp(-limit, limit) for vectors in (z, codes))
    return z, codes * (2 / temperature), codes.square().sum(-1) / -temperature


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
