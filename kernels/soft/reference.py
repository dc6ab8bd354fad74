"""Softmax-weighted codes under Gumbel noise: equations (1) to (6) of kernels/soft/README.md.

Rows are processed in blocks, so that neither direction has an N × K matrix of more than `SCORE_BUDGET` elements.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from quantizers.kernels.common.noise import gumbel_noise
from quantizers.kernels.common.vectors import compute_dtype

SCORE_BUDGET = 2**21  # elements in the largest block of logits


@torch.no_grad()
def soft_codes(
    x: Tensor, keys: Tensor, bias: Tensor, values: Tensor, temperature: Tensor, seed: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return softmax-weighted codes, a sample, and the divergence from the uniform distribution.

    Args:
        x: [N, D] vectors.
        keys, bias: [K, D] and [K]; logits are x·key + bias.
        values: [K, V] codes.
        temperature: 0-d, > 0.
        seed: 0-d int64, of `gumbel_noise` with the row's number. None: no noise.

    Returns: float32, or float64 if an input is, computed in float64:
        value: [N, V], Σ_k y_k value_k with y = softmax((logits + noise) / temperature).
        indices: [N] int64, argmax of the noisy logits, lowest on ties: an exact sample of softmax(logits).
        divergence: [N] in nats, KL(softmax(logits) ‖ uniform).
        log_sums: [N, 2], ln Σ exp(logits) and ln Σ exp((logits + noise) / temperature), for the backward.
    """
    dtype = compute_dtype(x, keys, bias, values)
    blocks = [
        _soft_rows(x[rows].double(), keys.double(), bias.double(), values.double(), temperature, noise)
        for rows, noise in _blocks(x, keys.shape[0], seed)
    ]
    value, indices, divergence, log_sums = (torch.cat(outputs) for outputs in zip(*blocks, strict=True))
    return value.to(dtype), indices, divergence.to(dtype), log_sums.to(dtype)


@torch.no_grad()
def soft_codes_backward(
    value_gradient: Tensor,
    divergence_gradient: Tensor,
    x: Tensor,
    keys: Tensor,
    bias: Tensor,
    values: Tensor,
    temperature: Tensor,
    seed: Tensor | None,
    value: Tensor,
    divergence: Tensor,
    log_sums: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of x, keys, bias and values for those of value [N, V] and divergence [N], in their
    dtypes.

    The last three arguments are outputs of the forward. Equations (4) to (6), computed in float64.
    """
    inputs = (x, keys, bias, values)
    x, keys, bias, values = (tensor.detach().double() for tensor in inputs)
    x_gradient = torch.empty_like(x)
    sums = [torch.zeros_like(tensor) for tensor in (keys, bias, values)]
    for rows, noise in _blocks(x, keys.shape[0], seed):
        log_p, y = _probabilities(x[rows], keys, bias, temperature, noise)
        g = value_gradient[rows].double()
        to_y = g @ values.T
        to_noisy = y * (to_y - (y * to_y).sum(-1, keepdim=True))
        p = log_p.exp()
        to_divergence = p * (log_p - (p * log_p).sum(-1, keepdim=True))
        to_logits = to_noisy / temperature + divergence_gradient[rows].double()[:, None] * to_divergence
        x_gradient[rows] = to_logits @ keys
        sums[0] += to_logits.T @ x[rows]
        sums[1] += to_logits.sum(0)
        sums[2] += y.T @ g
    gradients = (gradient.to(tensor.dtype) for gradient, tensor in zip((x_gradient, *sums), inputs, strict=True))
    x_gradient, keys_gradient, bias_gradient, values_gradient = gradients
    return x_gradient, keys_gradient, bias_gradient, values_gradient


def _blocks(x: Tensor, codebook_size: int, seed: Tensor | None) -> Iterator[tuple[slice, Tensor | float]]:
    """Yield slices of the rows, each with the noise of its logits; one empty slice for an empty batch."""
    step = max(1, SCORE_BUDGET // max(codebook_size, x.shape[1]))
    for start in range(0, max(1, x.shape[0]), step):
        rows = torch.arange(start, min(start + step, x.shape[0]), device=x.device)
        yield slice(start, start + step), 0.0 if seed is None else gumbel_noise(seed, rows, codebook_size)


def _soft_rows(
    x: Tensor, keys: Tensor, bias: Tensor, values: Tensor, temperature: Tensor, noise: Tensor | float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    logits = torch.addmm(bias, x, keys.T)
    noisy = (logits + noise) / temperature
    log_p = logits.log_softmax(-1)
    divergence = (log_p.exp() * log_p).sum(-1) + math.log(keys.shape[0])
    log_sums = torch.stack([logits.logsumexp(-1), noisy.logsumexp(-1)], -1)
    return noisy.softmax(-1) @ values, noisy.argmax(-1), divergence, log_sums


def _probabilities(
    x: Tensor, keys: Tensor, bias: Tensor, temperature: Tensor, noise: Tensor | float
) -> tuple[Tensor, Tensor]:
    """Return ln softmax(logits) and softmax((logits + noise) / temperature), [R, K] each."""
    logits = torch.addmm(bias, x, keys.T)
    return logits.log_softmax(-1), ((logits + noise) / temperature).softmax(-1)
