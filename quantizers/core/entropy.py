"""The entropy loss of a softmax over codes, for logits of any kind, without an N × K matrix."""

import functools
import math

import torch
from torch import Tensor

from quantizers.core.gradients import refined
from quantizers.kernels.common.vectors import compute_dtype
from quantizers.kernels.common.wide import narrowed, wide
from quantizers.kernels.soft.mean_softmax import log_mean_softmax
from quantizers.kernels.soft.operation import soft_codes

RAREST = 2000.0  # nats; in float64, a probability of e^−750 is already zero


def entropy_of_logits(z: Tensor, keys: Tensor, bias: Tensor, valid: Tensor, diversity: float = 1.0) -> Tensor:
    """Compute mean_n H(p_n) − diversity · H(p̄) in nats, p_n = softmax_k(z_n·key_k + bias_k), p̄ = mean_n p_n.

    No N × K matrix is formed, and no probability is clamped. With the usual clamp p̄_k ≥ 10⁻⁵, a codebook of more
    than 10⁵ codes that is used evenly would get no gradient. The two terms are computed as follows:

    - H(p_n) = log K − KL(p_n ‖ uniform), equation (3) in kernels/soft/README.md.
    - H(p̄) = −Σ_k p̄_k log p̄_k has the differential −Σ_k dp̄_k (log p̄_k + 1), and Σ_k dp̄_k = 0 because p̄ sums to
      one. So dH(p̄) = Σ_k v_k dp̄_k = d mean_n Σ_k p_nk v_k with v_k = −log p̄_k held constant. That mean over n of
      softmax-weighted values v is also H(p̄) itself: one softmax over K gives both the value and its gradient.

    Args:
        z: [N, D], float32 or float64. keys: [K, D]. bias: [K]. No logit may leave the range of the dtype.
        valid: [N] bool, the rows of z that count.
        diversity: ≥ 0, the weight of the second term.

    Returns: 0-d, between −diversity · log K and log K; zero without a valid row.
    """
    log_mean = log_mean_softmax(z.detach(), keys.detach(), bias.detach(), valid)
    # p_nk ≤ N p̄_k: where v is clamped, it is multiplied by a p_nk that is zero.
    rarity = (-log_mean).clamp(max=RAREST)
    soft, _, divergence = soft_codes(z, keys, bias, rarity[:, None], z.new_ones(()))
    share = valid.to(z.dtype) / valid.sum().clamp(min=1)
    loss = (share * (math.log(keys.shape[0]) - divergence - diversity * soft[:, 0])).sum()
    return refined(loss, functools.partial(_entropies, share=share, diversity=diversity), z, keys, bias)


def _entropies(z: Tensor, keys: Tensor, bias: Tensor, share: Tensor, diversity: float) -> Tensor:
    """The loss by its definition, with all N × K probabilities, for second derivatives."""
    log_p = (wide(z) @ wide(keys).T + wide(bias)).log_softmax(-1)
    p = log_p.exp()
    weights = wide(share)
    mean = weights @ p
    mean_entropy = -(mean * mean.where(mean > 0, 1.0).log()).sum()
    return narrowed(-(weights * (p * log_p).sum(-1)).sum() - diversity * mean_entropy, z.dtype, z.device)


def distance_logits(z: Tensor, codes: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """z [N, D], keys [K, D] and bias [K] with −‖z − e‖²/T = z·key + bias, up to a constant a row; all finite.

    The mean code is subtracted from vectors and codes first, which changes no distance and preserves the digits.
    """
    z, codes = _same_dtype(z, codes)
    centre = (codes.detach() / codes.shape[0]).sum(0)
    z, codes = _within_range(z - centre, codes - centre, temperature)
    return z, codes * (2 / temperature), codes.square().sum(-1) / -temperature


def product_logits(z: Tensor, codes: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """z [N, D], keys [K, D] and bias [K] with z·e/T = z·key + bias; all finite."""
    z, codes = _within_range(*_same_dtype(z, codes), temperature)
    return z, codes / temperature, torch.zeros_like(codes[:, 0])


def _same_dtype(z: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    dtype = compute_dtype(z, codes)
    return z.to(dtype), codes.to(dtype)


def _within_range(z: Tensor, codes: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Clamp coordinates so large that z·e/T or ‖e‖²/T would overflow; a clamped one gets no gradient."""
    largest = torch.finfo(z.dtype).max * min(temperature, 1.0) / codes.shape[1]
    limit = math.sqrt(largest) / 4
    return z.clamp(-limit, limit), codes.clamp(-limit, limit)
