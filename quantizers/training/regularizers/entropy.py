"""Vectors that decide for a code, and codes that are chosen equally often."""

import functools
import math

import torch
from torch import Tensor

from quantizers.core.arguments.checks import FinitePositive, Weight
from quantizers.core.arguments.configurable import configurable
from quantizers.core.arguments.options import checked
from quantizers.core.gradients import refined
from quantizers.core.regularizer import Regularizer
from quantizers.kernels.ops.mean_softmax import log_mean_softmax
from quantizers.kernels.ops.soft import soft_codes
from quantizers.kernels.vectors import compute_dtype

RAREST = 2000.0  # nats: a code less likely than e^−2000 has the probability zero in float64, three times over


def entropy_loss(
    z: Tensor, codes: Tensor, valid: Tensor, temperature: float = 0.01, diversity: float = 1.0
) -> Tensor:
    """mean_n H(p_n) − diversity · H(p̄) in nats, with p_n = softmax_k(−‖z_n − e_k‖² / T) and p̄ = mean_n p_n.

    Jansen et al.: Coincidence, Categorization, and Consolidation: Learning to Recognize Sounds with Minimal
    Supervision, 2020 (arXiv 1911.05894); with a codebook in MaskGIT's tokenizer (Chang et al. 2022,
    arXiv 2202.04200), and for sign bits in Yu et al. 2023 (arXiv 2310.05737). The first term draws a vector to
    one code, the second spreads vectors over all codes.

    No N × K matrix is made, and no probability is clamped: where every p̄_k is clamped from below at 10⁻⁵, as is
    usual, a codebook of more than 10⁵ codes that is used evenly has no gradient left. The parts:

    - H(p_n) = log K − KL(p_n ‖ uniform), of equation (14) in kernels/README.md.
    - H(p̄) = −Σ_k p̄_k log p̄_k has the differential −Σ_k dp̄_k (log p̄_k + 1), and Σ_k dp̄_k = 0 because p̄ sums to
      one. So dH(p̄) = Σ_k v_k dp̄_k = d mean_n Σ_k p_nk v_k with v_k = −log p̄_k held constant. That mean over n of
      softmax-weighted values v is also H(p̄) itself: one softmax over K gives both the value and its gradient.

    The mean code is subtracted from vectors and codes first, which changes no distance and keeps its digits.
    Coordinates so far out that ‖e‖²/T leaves float32 (about 10¹⁷ for T = 0.01) are cut off there, without a
    gradient.

    Args:
        z: [N, D], float32 or float64. codes: [K, D]. valid: [N] bool, the rows that count.
        temperature: T > 0, in squared units of z; diversity: ≥ 0.

    Returns: 0-d, float32 (float64 if an input is), between −diversity · log K and log K; zero without a valid row.
    """
    z, keys, bias = distance_logits(z, codes, temperature)
    log_mean = log_mean_softmax(z.detach(), keys.detach(), bias.detach(), valid)
    # p_nk ≤ N p̄_k: what the bound on v changes is multiplied by a p_nk that is zero.
    rarity = (-log_mean).clamp(max=RAREST)
    soft, _, divergence = soft_codes(z, keys, bias, rarity[:, None], z.new_ones(()))
    share = valid.to(z.dtype) / valid.sum().clamp(min=1)
    loss = (share * (math.log(codes.shape[0]) - divergence - diversity * soft[:, 0])).sum()
    return refined(loss, functools.partial(_entropies, share=share, diversity=diversity), z, keys, bias)


def _entropies(z: Tensor, keys: Tensor, bias: Tensor, share: Tensor, diversity: float) -> Tensor:
    """The loss by its definition, with all N × K probabilities, for a derivative of its derivative."""
    log_p = (z.double() @ keys.double().T + bias.double()).log_softmax(-1)
    p = log_p.exp()
    mean = share.double() @ p
    of_mean = -(mean * mean.where(mean > 0, 1.0).log()).sum()
    return (-(share * (p * log_p).sum(-1)).sum() - diversity * of_mean).to(z.dtype)


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
    """weight · (mean_n H(p_n) − diversity · H(p̄)), see `entropy_loss`.

    In data parallel p̄ is the mean over the rank's own batch. DDP averages the gradients of that, which are not
    those of the entropy over all ranks: H is concave, so a rank whose batch is small is pushed to spread more.

    Args:
        weight: ≥ 0. temperature: T > 0, see `entropy_loss`. diversity: ≥ 0, of the second term.

    Raises: ValueError for a number out of these.
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
