"""Softmax-weighted codes in PyTorch's own operations, for graphs of other runtimes."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from quantizers.kernels.common.exported import BLOCK, first_highest
from quantizers.kernels.common.noise import gumbel_noise
from quantizers.kernels.common.vectors import compute_dtype
from quantizers.kernels.common.wide import narrowed, wide, wide_device


def soft_codes(
    x: Tensor, keys: Tensor, bias: Tensor, values: Tensor, temperature: Tensor, seed: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As kernels/soft/reference.py, up to rounding."""
    dtype = compute_dtype(x, keys, bias, values)
    device = x.device
    x, keys, bias, values = wide(x), wide(keys), wide(bias), wide(values)
    blocks = list(_soft_blocks(x, keys, bias, wide(temperature), seed))
    log_sums = [_log_sum([block[i] for block in blocks]) for i in (0, 1)]
    value = x.new_zeros(x.shape[0], values.shape[1])
    divergence = torch.full_like(log_sums[0], math.log(keys.shape[0]))
    for (logits, noisy), block_values in zip(blocks, torch.split(values, BLOCK), strict=True):
        log_p = logits - log_sums[0][:, None]
        value = value + (noisy - log_sums[1][:, None]).exp() @ block_values
        divergence = divergence + (log_p.exp() * log_p).sum(-1)
    indices = first_highest([noisy for _, noisy in blocks])
    outputs = value, divergence, torch.stack(log_sums, -1).detach()
    value, divergence, log_sum = (narrowed(output, dtype, device) for output in outputs)
    return value, narrowed(indices, torch.int64, device), divergence, log_sum


def log_mean_softmax(x: Tensor, keys: Tensor, bias: Tensor, valid: Tensor) -> Tensor:
    """As kernels/soft/mean_softmax.py."""
    dtype = compute_dtype(x, keys, bias)
    device = x.device
    x, keys, bias, valid = wide(x), wide(keys), wide(bias), valid.to(wide_device(device))
    blocks = [
        x @ block_keys.T + offset
        for block_keys, offset in zip(torch.split(keys, BLOCK), torch.split(bias, BLOCK), strict=True)
    ]
    log_sum = _log_sum(blocks)[:, None]
    masked = [(block - log_sum).where(valid[:, None], -torch.inf) for block in blocks]
    totals = torch.cat([block.logsumexp(0) for block in masked])
    return narrowed(totals - wide(valid.sum()).clamp(min=1).log(), dtype, device)


def _soft_blocks(
    x: Tensor, keys: Tensor, bias: Tensor, temperature: Tensor, seed: Tensor | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield logits and (logits + noise) / temperature [N, BLOCK] of each block of codes."""
    rows = torch.arange(x.shape[0], device=x.device)
    noise = None if seed is None else gumbel_noise(seed.to(x.device), rows, keys.shape[0])
    for start in range(0, keys.shape[0], BLOCK):
        codes = slice(start, start + BLOCK)
        logits = x @ keys[codes].T + bias[codes]
        yield logits, (logits if noise is None else logits + noise[:, codes]) / temperature.detach()


def _log_sum(blocks: list[Tensor]) -> Tensor:
    """Return ln Σ exp [N] of blocks [N, BLOCK]."""
    largest = torch.stack([block.detach().amax(-1) for block in blocks]).amax(0)
    total = torch.stack([(block - largest[:, None]).exp().sum(-1) for block in blocks]).sum(0)
    return largest + total.log()
