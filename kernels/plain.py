"""The operations in PyTorch's own, without loops over rows or branches on values, for graphs of other runtimes.

A graph from `torch.export` contains this library's operations as they are, which only a process that imports the
library can run. These functions compute the same with operations that every runtime supports, including ONNX
runtimes. They loop over blocks of codes, whose number is known when a graph is made, so that no graph contains an
N × K matrix.

PyTorch can differentiate them to any order; it then stores all blocks, which amounts to an N × K matrix.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from quantizers.kernels.reference import nearest as reference_nearest
from quantizers.kernels.reference.noise import gumbel_noise
from quantizers.kernels.vectors import are_finite, compute_dtype

BLOCK = 2048  # codes whose scores are in memory at once
NETWORK_BLOCK = 256  # codes of a network that are in memory at once for each vector


def nearest_code(x: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """As kernels/reference/nearest.py up to its certificate, equation (3): codes that are closer together than
    twice that bound count as equally near, and the lowest of them is chosen.
    """
    indices, _, distance = nearest_lookup(x, codebook)
    return indices, distance.where(indices >= 0, torch.nan)


def nearest_lookup(x: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return indices [H, N], codes [H, N, D] and squared distances [H, N]; −1 and zeros for a vector that is not
    finite.
    """
    indices = torch.stack(
        [_nearest_index(rows, codes) for rows, codes in zip(x.unbind(0), codebook.unbind(0), strict=True)]
    )
    dtype, has_code = compute_dtype(x, codebook), indices >= 0
    codes = chosen_codes(codebook, indices).to(dtype)
    distance = (x.to(dtype) - codes).square().sum(-1)
    return indices, codes, distance.where(has_code, 0.0)


def chosen_codes(codebook: Tensor, indices: Tensor) -> Tensor:
    """Return codes [H, N, D] of a codebook [H, K, D] by indices [H, N]; zero for −1."""
    positions = indices.clamp(min=0)[..., None].expand(-1, -1, codebook.shape[-1])
    return codebook.gather(1, positions).where((indices >= 0)[..., None], 0.0)


def soft_codes(
    x: Tensor, keys: Tensor, bias: Tensor, values: Tensor, temperature: Tensor, seed: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As kernels/reference/soft.py, up to rounding."""
    dtype = compute_dtype(x, keys, bias, values)
    blocks = list(_soft_blocks(x.double(), keys.double(), bias.double(), temperature.double(), seed))
    log_sums = [_log_sum([block[i] for block in blocks]) for i in (0, 1)]
    value = x.new_zeros(x.shape[0], values.shape[1], dtype=torch.float64)
    divergence = torch.full_like(log_sums[0], math.log(keys.shape[0]))
    for (logits, noisy), block_values in zip(blocks, torch.split(values.double(), BLOCK), strict=True):
        log_p = logits - log_sums[0][:, None]
        value = value + (noisy - log_sums[1][:, None]).exp() @ block_values
        divergence = divergence + (log_p.exp() * log_p).sum(-1)
    indices = _first_highest([noisy for _, noisy in blocks])
    return value.to(dtype), indices, divergence.to(dtype), torch.stack(log_sums, -1).detach().to(dtype)


def log_mean_softmax(x: Tensor, keys: Tensor, bias: Tensor, valid: Tensor) -> Tensor:
    """As kernels/ops/mean_softmax.py."""
    dtype = compute_dtype(x, keys, bias)
    x, keys, bias = x.double(), keys.double(), bias.double()
    blocks = [
        x @ block_keys.T + offset
        for block_keys, offset in zip(torch.split(keys, BLOCK), torch.split(bias, BLOCK), strict=True)
    ]
    log_sum = _log_sum(blocks)[:, None]
    masked = [(block - log_sum).where(valid[:, None], -torch.inf) for block in blocks]
    totals = torch.cat([block.logsumexp(0) for block in masked])
    return (totals - valid.sum(dtype=torch.float64).clamp(min=1).log()).to(dtype)


def nearest_implicit_code(
    targets: Tensor, context: Tensor, codes: Tensor, weight: Tensor, bias: Tensor, blocks: Sequence[Tensor]
) -> Tensor:
    """As kernels/reference/implicit.py, with [N, NETWORK_BLOCK, D] numbers in memory at once."""
    dim = targets.shape[-1]
    code_terms = codes + codes @ weight[:, :dim].T + bias
    context_term = context @ weight[:, dim:].T
    distances = []
    for block_terms in torch.split(code_terms, NETWORK_BLOCK):
        values = block_terms + context_term[:, None]
        for up, down in zip(blocks[::2], blocks[1::2], strict=True):
            values = values + torch.relu(values @ up.T) @ down.T
        values = values.double()
        distances.append((values * (values - 2 * targets[:, None].double())).sum(-1))
    return _first_highest([-distance for distance in distances])


def _soft_blocks(
    x: Tensor, keys: Tensor, bias: Tensor, temperature: Tensor, seed: Tensor | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield logits and (logits + noise) / temperature [N, BLOCK] of each block of codes."""
    noise = None if seed is None else gumbel_noise(seed, torch.arange(x.shape[0], device=x.device), keys.shape[0])
    for start in range(0, keys.shape[0], BLOCK):
        codes = slice(start, start + BLOCK)
        logits = x @ keys[codes].T + bias[codes]
        yield logits, (logits if noise is None else logits + noise[:, codes]) / temperature.detach()


def _log_sum(blocks: list[Tensor]) -> Tensor:
    """Return ln Σ exp [N] of blocks [N, BLOCK]."""
    largest = torch.stack([block.detach().amax(-1) for block in blocks]).amax(0)
    total = torch.stack([(block - largest[:, None]).exp().sum(-1) for block in blocks]).sum(0)
    return largest + total.log()


def _first_highest(blocks: list[Tensor]) -> Tensor:
    """Return the first column of the largest number in each row of blocks [N, width], int64 [N]."""
    largest = torch.stack([block.amax(-1) for block in blocks])  # [blocks, N]
    block = (largest >= largest.amax(0)).to(torch.int32).argmax(0)
    columns = torch.stack([(each >= each.amax(-1, keepdim=True)).to(torch.int32).argmax(-1) for each in blocks])
    return columns.gather(0, block[None])[0] + block * blocks[0].shape[1]


def highest_score(x: Tensor, keys: Tensor, bias: Tensor) -> Tensor:
    """As kernels/reference/nearest.py."""
    x, keys, bias = x.double(), keys.double(), bias.double()
    largest = _length(keys).amax(0)
    bound = _relative_error(x) * (_length(x) * largest + bias.abs().amax(0))
    return _first_lowest(-bias, -keys, x, bound)


def _nearest_index(x: Tensor, codebook: Tensor) -> Tensor:
    packed = reference_nearest.pack(codebook)
    finite = are_finite(x) & packed.finite.any()
    centred = x.double().where(finite[:, None], 0.0) - packed.centre
    bound = _relative_error(x) * (_length(centred) * packed.radius + 0.5 * packed.radius.square())
    return _first_lowest(packed.half_norms, -packed.centred, centred, bound).where(finite, -1)


def _relative_error(x: Tensor) -> float:
    return (x.shape[-1] + 8) * reference_nearest.ROUNDOFF


def _length(vectors: Tensor) -> Tensor:
    return vectors.square().sum(-1).sqrt()


def _first_lowest(constants: Tensor, keys: Tensor, x: Tensor, bound: Tensor) -> Tensor:
    """Return the first index whose score, constant + x·key, is the lowest up to twice its bound.

    constants [K], keys [K, D], x [N, D], bound [N] → int64 [N].
    """
    lowest = torch.full_like(bound, torch.inf)
    indices = torch.zeros_like(bound, dtype=torch.int64)
    for start in range(0, keys.shape[0], BLOCK):
        scores = constants[start : start + BLOCK] + x @ keys[start : start + BLOCK].T
        lowest_here = scores.amin(-1)
        near = scores <= (lowest_here + 2 * bound)[:, None]
        first = near.to(torch.int32).argmax(-1) + start
        lower = lowest_here < lowest - 2 * bound
        indices = first.where(lower, indices)
        lowest = lowest_here.where(lower, lowest)
    return indices
