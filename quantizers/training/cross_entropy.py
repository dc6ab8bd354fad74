"""The cross entropy of given codes: how well a vector's distances predict a code that is not its own choice."""

import functools
import math

import torch
from torch import Tensor

from quantizers.core.codebook import lookup
from quantizers.core.gradients import exact_value, refined
from quantizers.kernels.modes import has_values
from quantizers.kernels.ops.arguments import (
    check_axes,
    check_device,
    check_equal,
    check_floating,
    check_not_empty,
)
from quantizers.kernels.ops.soft import soft_values
from quantizers.training.regularizers.entropy import distance_logits


def code_cross_entropy(z: Tensor, codes: Tensor, targets: Tensor, *, temperature: float = 1.0) -> Tensor:
    """−log p_t in nats, with p = softmax_k(−‖z − e_k‖² / T) and t the target, for each vector.

    With another quantizer's indices as targets z learns to predict its codes; with z's own it is a commitment that
    also pushes z from the codes that it did not choose.

    No N × K matrix is made. With logits l_k = z·key_k + bias_k the value is log Σ_k exp l_k − l_t, and its
    differential Σ_k p_k dl_k − dl_t: that of z·(Σ_k p_k key_k − key_t) + Σ_k p_k bias_k − bias_t with p held
    constant. One softmax over K gives both.

    The mean code is subtracted first, which keeps the distances' digits. Coordinates so far out that ‖e‖²/T leaves
    float32 (about 10¹⁸ for T = 1) are cut off there, without a gradient. The gradient's sums over K round in
    float32: by about 10⁻⁴ of their terms at K = 2¹⁷ on a CPU.

    Args:
        z: [N, D], codes: [K, D], of floating dtype. Both get gradients; a row of z that does not count may be NaN.
        targets: [N] int64 in [0, K), or −1 where a vector does not count.
        temperature: T > 0, in squared units of z.

    Returns: [N], float32 (float64 if an input is), ≥ 0; zero where the target is −1.

    Raises: ValueError or TypeError where the arguments do not fit together. IndexError for a target outside
        [−1, K), on a CPU; elsewhere, and in a graph, targets are not read.
    """
    _check(z, codes, targets, temperature)
    counts = targets >= 0
    z, keys, bias = distance_logits(z.where(counts[:, None], 0.0), codes, temperature)
    table = torch.cat([keys, bias[:, None]], 1)
    mean, log_sum = soft_values(z, keys, bias, table)
    chosen = lookup(table, targets)
    surrogate = _logit(z, mean - chosen)
    value = (log_sum - _logit(z.detach(), chosen.detach())).clamp(min=0)  # rounding may make it less
    loss = refined(exact_value(surrogate, value), functools.partial(_each, targets=targets), z, keys, bias)
    return loss.where(counts, 0.0)


def _each(z: Tensor, keys: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """The cross entropies by their definition, with all N × K logits, for a derivative of their derivative."""
    logits = z.double() @ keys.double().T + bias.double()
    chosen = logits.gather(1, targets.clamp(min=0)[:, None])[:, 0]
    return (logits.logsumexp(-1) - chosen).to(z.dtype)


def _logit(z: Tensor, row: Tensor) -> Tensor:
    """z·key + bias [N], for rows [N, D + 1] of a key and its bias."""
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
            f"targets have shape {tuple(targets.shape)}, expected {tuple(z.shape[:1])}, one for each row"
        )
    if targets.device.type != "cpu" or not has_values(targets) or not targets.numel():
        return
    low, high = (int(end) for end in targets.aminmax())
    if low < -1 or high >= codes.shape[0]:
        raise IndexError(f"targets range from {low} to {high}, expected 0 to {codes.shape[0] - 1}, or −1 for none")
