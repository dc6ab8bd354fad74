"""The cross entropy of target codes under the distribution that a vector's distances to the codes define."""

import functools
import math

import torch
from torch import Tensor

from quantizers.core.codebook import lookup
from quantizers.core.entropy import distance_logits
from quantizers.core.gradients import exact_value, refined
from quantizers.kernels.common.arguments import (
    check_axes,
    check_device,
    check_equal,
    check_floating,
    check_not_empty,
)
from quantizers.kernels.common.modes import has_values
from quantizers.kernels.common.wide import narrowed, wide
from quantizers.kernels.soft.operation import soft_values


def code_cross_entropy(z: Tensor, codes: Tensor, targets: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Compute for each vector the cross entropy −log p_t in nats, p = softmax_k(−‖z − e_k‖² / T), t its target.

    With the indices of another quantizer as targets, z learns to predict its codes. With the indices of z itself,
    this is a commitment loss that also pushes z away from the codes that it did not choose.

        >>> import torch, quantizers
        >>> codes = torch.eye(3)
        >>> quantizers.code_cross_entropy(codes, codes, targets=torch.tensor([0, 1, -1]))
        tensor([0.2395, 0.2395, 0.0000])

    No N × K matrix is formed. With logits l_k = z·key_k + bias_k the value is log Σ_k exp l_k − l_t, and its
    differential is Σ_k p_k dl_k − dl_t, which is also the differential of
    z·(Σ_k p_k key_k − key_t) + Σ_k p_k bias_k − bias_t with p held constant. One softmax over K gives both the
    value and the gradient.

    The mean code is subtracted first, which preserves the digits of the distances. Coordinates so large that
    ‖e‖²/T overflows float32 (about 10¹⁸ for T = 1) are clamped, without a gradient. The gradient's sums over K are
    rounded in float32: by about 10⁻⁴ of their terms at K = 2¹⁷ on a CPU.

    Args:
        z: [N, D], of a floating dtype. A row that does not count may be NaN.
        codes: [K, D], of a floating dtype. Both z and codes get gradients.
        targets: [N] int64 in [0, K), or −1 for a vector that does not count.
        temperature: T > 0, in squared units of z.

    Returns: [N], float32 (float64 if an input is float64), ≥ 0; zero where the target is −1.

    Raises: ValueError or TypeError where the arguments do not fit together. IndexError for a target outside
        [−1, K) on a CPU; on other devices and in a graph, the values of the targets are not checked.
    """
    _check(z, codes, targets, temperature)
    counts = targets >= 0
    z, keys, bias = distance_logits(z.where(counts[:, None], 0.0), codes, temperature)
    table = torch.cat([keys, bias[:, None]], 1)
    mean, log_sum = soft_values(z, keys, bias, table)
    chosen = lookup(table, targets)
    surrogate = _logit(z, mean - chosen)
    value = (log_sum - _logit(z.detach(), chosen.detach())).clamp(min=0)  # rounding may make it negative
    loss = refined(
        exact_value(surrogate, value), functools.partial(_by_definition, targets=targets), z, keys, bias
    )
    return loss.where(counts, 0.0)


def _by_definition(z: Tensor, keys: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """The cross entropies by their definition, with all N × K logits, for second derivatives."""
    logits = wide(z) @ wide(keys).T + wide(bias)
    chosen = logits.gather(1, targets.clamp(min=0)[:, None].to(logits.device))[:, 0]
    return narrowed(logits.logsumexp(-1) - chosen, z.dtype, z.device)


def _logit(z: Tensor, row: Tensor) -> Tensor:
    """z·key + bias [N], for rows [N, D + 1] that consist of a key and its bias."""
    return (z * row[:, :-1]).sum(-1) + row[:, -1]


def _check(z: Tensor, codes: Tensor, targets: Tensor, temperature: float) -> None:
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature is {temperature!r}, expected a finite number above 0")
    check_axes("z", z, "[N, D]")
    check_axes("codes", codes, "[K, D]")
    check_floating(z=z, codes=codes)
    check_equal("channels", "z", z.shape[1], "codes", codes.shape[1])
    check_not_empty("codes", codes)
    check_device(z=z, codes=codes, targets=targets)
    if targets.dtype != torch.int64:
        raise TypeError(f"targets have dtype {targets.dtype}, expected torch.int64")
    if targets.shape != z.shape[:1]:
        raise ValueError(
            f"targets have shape {tuple(targets.shape)}, expected {tuple(z.shape[:1])}, one per row of z"
        )
    if targets.device.type != "cpu" or not has_values(targets) or not targets.numel():
        return
    low, high = (int(end) for end in targets.aminmax())
    if low < -1 or high >= codes.shape[0]:
        raise IndexError(f"targets range from {low} to {high}, expected 0 to {codes.shape[0] - 1}, or −1 for none")
