"""The specification of every operation, in eager PyTorch: plain tensors in, plain tensors out, no state.

Searches run in float64, in blocks of rows, so that no N × K matrix of more than `SCORE_BUDGET` elements is
ever alive. Numbers in parentheses, as in (3), are the equations of README.md beside this file.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

SCORE_BUDGET = 2**21  # elements of the largest score block: 16 MiB in float64
ROUNDOFF = 2.0**-53  # unit roundoff u of float64
LARGEST_RATIO = 100.0  # bound on the rotation trick's scale: 1/100 ≤ λ ≤ 100, equation (9)
LEVEL_MARGIN = 1e-3  # how far FSQ's bound reaches past the outermost level, relative: the paper's ε


def compute_dtype(*tensors: Tensor) -> torch.dtype:
    """float64 if any tensor is float64, else float32: what distances, losses and state are computed in."""
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


@torch.no_grad()
def nearest_code(x: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest code of each vector in Euclidean distance, by equations (1) to (5).

    Args:
        x: [H, N, D] vectors, any floating dtype, finite or not.
        codebook: [H, K, D] codes, K ≥ 1. A code that is not finite is never chosen.

    Returns:
        indices: [H, N] int64. The smallest exact distance up to a relative error of (2D + 16)·2⁻⁵³; among
            distances that are equal the lowest index; −1 where a vector (or every code) is not finite.
        squared_distance: [H, N], the difference form Σ(x − e)² in float32 (float64 if an input is float64);
            NaN where the index is −1.
    """
    heads, n, d = x.shape
    size = codebook.shape[1]
    rows = max(1, SCORE_BUDGET // max(size, d))
    indices = torch.full((heads, n), -1, dtype=torch.int64, device=x.device)
    for head in range(heads):
        packed = _pack(codebook[head])
        for start in range(0, n, rows):
            block = x[head, start : start + rows].double()
            indices[head, start : start + rows] = _nearest_rows(block, packed)
    dtype = compute_dtype(x, codebook)
    chosen = codebook.gather(1, indices.clamp(min=0)[..., None].expand(-1, -1, d)).to(dtype)
    distance = (x.to(dtype) - chosen).square().sum(-1)
    return indices, distance.masked_fill(indices < 0, torch.nan)


class _Packed(NamedTuple):
    """What a search needs of a codebook, in float64, computed once for all blocks of rows."""

    codes: Tensor  # [K, D], zero where a code is broken
    finite: Tensor  # [K] bool: not broken
    centre: Tensor  # [D], the mean code
    centred: Tensor  # [K, D], codes − centre
    half_norms: Tensor  # [K], ½‖centred‖², +inf for a broken code
    radius: Tensor  # 0-d, the largest ‖centred‖


def _pack(codebook: Tensor) -> _Packed:
    codes = codebook.double()
    finite = codes.isfinite().all(-1)
    codes = codes.where(finite[:, None], 0.0)
    centre = codes.sum(0) / finite.sum().clamp(min=1)
    centred = codes - centre
    half_norms = 0.5 * centred.square().sum(-1)
    radius = (2 * half_norms.where(finite, 0.0).amax()).sqrt()
    return _Packed(codes, finite, centre, centred, half_norms.where(finite, torch.inf), radius)


def _nearest_rows(x: Tensor, packed: _Packed) -> Tensor:
    """Indices [R] of rows x [R, D]: scores (1), certificate (3), and the difference form (4) where it fails."""
    finite = x.isfinite().all(-1)
    x = x.where(finite[:, None], 0.0)
    centred = x - packed.centre
    scores = torch.addmm(packed.half_norms, centred, packed.centred.T, alpha=-1)
    length = torch.linalg.vector_norm(centred, dim=-1)
    bound = (x.shape[1] + 8) * ROUNDOFF * (length * packed.radius + 0.5 * packed.radius.square())
    near = scores <= (scores.amin(-1) + 2 * bound)[:, None]
    indices = _first(near)
    if near.count_nonzero() > len(x):
        uncertain = near.sum(-1) > 1
        indices[uncertain] = _nearest_by_difference(x[uncertain], packed)
    return indices.where(finite & packed.finite.any(), -1)


def _nearest_by_difference(x: Tensor, packed: _Packed) -> Tensor:
    """Indices [R] by the difference form ‖x − e‖, relatively accurate however close the codes lie: (4), (5)."""
    distance = torch.cdist(x, packed.codes, compute_mode="donot_use_mm_for_euclid_dist")
    distance = distance.masked_fill(~packed.finite, torch.inf)
    nearest = distance.amin(-1, keepdim=True)
    return _first(distance <= nearest * (1 + (x.shape[1] + 8) * ROUNDOFF))


def _first(flags: Tensor) -> Tensor:
    """The lowest column that is set in each row of a boolean matrix [R, K]."""
    return flags.view(torch.uint8).argmax(-1)


@torch.no_grad()
def highest_score(x: Tensor, keys: Tensor, bias: Tensor) -> Tensor:
    """argmax_k x·key_k + bias_k in float64, [N, D], [K, D], [K] → int64 [N]; lowest index on ties as in (3)."""
    keys, bias = keys.double(), bias.double()
    largest_key = torch.linalg.vector_norm(keys, dim=-1).amax()
    indices = torch.empty(x.shape[0], dtype=torch.int64, device=x.device)
    rows = max(1, SCORE_BUDGET // max(keys.shape))
    for start in range(0, x.shape[0], rows):
        block = x[start : start + rows].double()
        scores = torch.addmm(bias, block, keys.T)
        length = torch.linalg.vector_norm(block, dim=-1)
        bound = (x.shape[1] + 8) * ROUNDOFF * (length * largest_key + bias.abs().amax())
        indices[start : start + rows] = _first(scores >= (scores.amax(-1) - 2 * bound)[:, None])
    return indices


@torch.no_grad()
def code_sums(x: Tensor, indices: Tensor, codebook_size: int) -> tuple[Tensor, Tensor]:
    """How many vectors chose each code, and their sum.

    Args:
        x: [H, N, D] vectors. indices: [H, N] int64; vectors with index −1 do not count.

    Returns:
        counts [H, K] and sums [H, K, D], float32 (float64 for float64 input), accumulated in float64.
    """
    heads, n, d = x.shape
    bins = codebook_size + 1  # the last bin takes the vectors without a code
    offsets = torch.arange(heads, device=x.device)[:, None] * bins
    target = (indices.where(indices >= 0, codebook_size) + offsets).flatten()
    counts = torch.zeros(heads * bins, dtype=torch.int64, device=x.device)
    counts.index_add_(0, target, torch.ones_like(target))
    sums = torch.zeros(heads * bins, d, dtype=torch.float64, device=x.device)
    sums.index_add_(0, target, x.reshape(heads * n, d).double().where((indices >= 0).reshape(-1, 1), 0.0))
    dtype = compute_dtype(x)
    return (
        counts.view(heads, bins)[:, :-1].to(dtype),
        sums.view(heads, bins, d)[:, :-1].to(dtype),
    )


def normalize(x: Tensor) -> Tensor:
    """x / ‖x‖₂ along the last axis, at any scale of float32; a zero vector stays zero and passes its gradient.

    Dividing by the largest component first keeps the squares in range. The direction does not depend on that
    divisor, so holding it constant leaves the gradient exact.
    """
    largest = x.detach().abs().amax(-1, keepdim=True)
    scaled = x / largest.clamp(min=torch.finfo(x.dtype).tiny).where(largest > 0, 1.0)
    norm = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
    unit: Tensor = scaled / norm.where(norm > 0, 1.0)
    return unit


def rotate_grad(gradient: Tensor, x: Tensor, quantized: Tensor) -> Tensor:
    """λ Rᵀ g, the backward of the rotation trick (Fifty et al. 2024, §4.2), by equations (6) to (10).

    Args: [..., D] each; `x` the encoder's vector, `quantized` its code.

    Returns: [..., D] in the gradient's dtype, of norm λ‖g‖ with 1/100 ≤ λ ≤ 100 for all finite vectors;
        g itself where x or its code is zero.
    """
    g, x, q = gradient.double(), x.double(), quantized.double()
    x_norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    q_norm = torch.linalg.vector_norm(q, dim=-1, keepdim=True)
    rotates = (x_norm > 0) & (q_norm > 0)  # else there is no direction to rotate: straight-through
    x_norm, q_norm = x_norm.where(rotates, 1.0), q_norm.where(rotates, 1.0)
    ratio = (q_norm / x_norm).clamp(1 / LARGEST_RATIO, LARGEST_RATIO)
    x_unit, q_unit = x / x_norm, q / q_norm
    middle = x_unit + q_unit
    middle_norm = torch.linalg.vector_norm(middle, dim=-1, keepdim=True)
    opposite = middle_norm < ROUNDOFF**0.5
    w = (middle / middle_norm.where(~opposite, 1.0)).where(~opposite, 0.0)
    rotated = g - 2 * w * _dot(w, g) + 2 * x_unit * _dot(q_unit, g)
    result: Tensor = (ratio * rotated).where(rotates, g).to(gradient.dtype)
    return result


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1, keepdim=True)


def bound_levels(z: Tensor, levels: Tensor, slope: float) -> Tensor:
    """FSQ's bounded vector before rounding, equation (11): [..., d] with levels int64 [d] → [..., d].

    In units in which code values are multiples of 1 / ⌊L/2⌋; differentiable in z.
    """
    steps = (levels - 1).to(z.dtype) / 2
    half_range = steps + (steps * LEVEL_MARGIN).clamp(max=0.25)
    offset = (levels % 2 == 0).to(z.dtype) / 2
    shift = (offset / half_range).where(levels > 2, 0.0).atanh()
    return ((slope * z + shift).tanh() * half_range - offset) / (levels // 2)


@torch.no_grad()
def round_levels(bounded: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest code of a bounded vector [..., d], and its index [...] = Σ digit_i Π_{j<i} L_j (int64)."""
    half = levels // 2
    digits = (bounded * half).round().to(torch.int64) + half
    # Near 2²⁴ levels the bound's own rounding reaches past the outermost one.
    digits = digits.clamp(min=0).minimum(levels - 1)
    return level_values(digits, levels, bounded.dtype), (digits * digit_weights(levels)).sum(-1)


def level_values(digits: Tensor, levels: Tensor, dtype: torch.dtype) -> Tensor:
    """Code values in [−1, 1] of digits 0 … L−1, [..., d]: (digit − ⌊L/2⌋) / ⌊L/2⌋."""
    half = levels // 2
    return (digits - half).to(dtype) / half.to(dtype)


def digit_weights(levels: Tensor) -> Tensor:
    """Π_{j<i} L_j for each channel i, int64 [d]. The product of all levels, which may be 2⁶³, is not formed."""
    return torch.cat([torch.ones_like(levels[:1]), levels[:-1].cumprod(0)])


def index_digits(indices: Tensor, levels: Tensor) -> Tensor:
    """The digits [..., d] of indices [...] in the mixed radix of the levels."""
    return indices[..., None] // digit_weights(levels) % levels


def gumbel_noise(like: Tensor, seed: int) -> Tensor:
    """Standard Gumbel noise of the shape of `like`; the same for the same seed, shape and device."""
    generator = torch.Generator(like.device).manual_seed(seed)
    exponential = torch.empty_like(like).exponential_(generator=generator)
    return exponential.clamp_(min=torch.finfo(like.dtype).tiny).log_().neg_()


def soft_codes(
    x: Tensor, keys: Tensor, bias: Tensor, values: Tensor, temperature: Tensor, seed: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Softmax-weighted codes under Gumbel noise, equations (12) to (14).

    Rows go in blocks that are recomputed in the backward, so neither direction holds an N × K matrix.

    Args:
        x: [N, D] vectors. keys: [K, D], bias: [K]; logits are x·key + bias. values: [K, V] codes.
        temperature: 0-d, > 0. seed: of the noise; block b of the rows uses seed + b. None: no noise.

    Returns:
        value: [N, V], Σ_k y_k value_k with y = softmax((logits + noise) / temperature).
        indices: [N] int64, argmax of the noisy logits: an exact sample of softmax(logits).
        divergence: [N] in nats, KL(softmax(logits) ‖ uniform).
    """
    rows = max(1, SCORE_BUDGET // max(keys.shape))
    blocks = [
        checkpoint(
            _soft_rows,
            block,
            keys,
            bias,
            values,
            temperature,
            None if seed is None else seed + number,
            use_reentrant=False,
            preserve_rng_state=False,
        )
        for number, block in enumerate(torch.split(x, rows))
    ]
    value, indices, divergence = (torch.cat(parts) for parts in zip(*blocks, strict=True))
    return value, indices, divergence


def _soft_rows(
    x: Tensor, keys: Tensor, bias: Tensor, values: Tensor, temperature: Tensor, seed: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    logits = torch.addmm(bias, x, keys.T)
    noise = 0.0 if seed is None else gumbel_noise(logits, seed)
    noisy = (logits + noise) / temperature
    log_p = logits.log_softmax(-1)
    divergence = (log_p.exp() * log_p).sum(-1) + math.log(keys.shape[0])
    return noisy.softmax(-1) @ values, noisy.argmax(-1), divergence
