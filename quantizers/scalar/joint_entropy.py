"""The entropy of groups of bits over a batch, exact, without a table of all vectors times all patterns.

A group of b bits of vector n has 2^b patterns c, with probabilities that are products over its bits: p_n[c] =
Π_i σ(±ℓ_ni), + where c has a one. Their mean over the batch is no product any more,

    p̄[c] = 1/N Σ_n p_n[c]                                    (1)

but each term is one of two factors, the first ⌈b/2⌉ bits' patterns a and the others' patterns a′:

    p̄[a, a′] = 1/N Σ_n p_n[a] p_n[a′] = 1/N AᵀA′             (2)

with the halves' probabilities in A [N, 2^⌈b/2⌉] and A′ [N, 2^⌊b/2⌋]. One matrix product thus gives all 2^b of
them; 18 bits take two tables of 512 columns. All terms are positive, so that even small sums keep their digits, in
float32 to the precision that `torch.set_float32_matmul_precision` allows.
"""

import torch
from torch import Tensor
from torch import distributed as dist

from quantizers.core.parallel import differentiable_sum_over_ranks

LARGEST_GROUP = 24
"""Bits in a group: the probabilities of 2²⁴ patterns are 64 MiB in float32, which backward holds several times."""

DEFAULT_GROUP = 14
"""Bits in a group by default, at most: two tables of 128 columns."""


def group_sizes(bits: int, group_bits: int | None) -> tuple[int, ...]:
    """The numbers of bits in the groups of a code, in order.

    By default these are as few groups as DEFAULT_GROUP allows, of equal sizes or of two that differ by one, so
    that a number of bits without divisors is no exception.

    Raises: ValueError where `group_bits` does not divide `bits`, or is above LARGEST_GROUP.
    """
    if group_bits is None:
        groups = -(-bits // DEFAULT_GROUP)
        return tuple(bits // groups + (place < bits % groups) for place in range(groups))
    if group_bits > LARGEST_GROUP:
        raise ValueError(
            f"group_bits is {group_bits}, expected at most {LARGEST_GROUP}: the loss needs the probabilities of "
            f"all 2**group_bits patterns of a group, {2 ** (LARGEST_GROUP - 18)} MiB in float32 at {LARGEST_GROUP}"
        )
    if bits % group_bits:
        raise ValueError(f"group_bits is {group_bits}, expected a divisor of {bits}, the number of bits in a code")
    return (group_bits,) * (bits // group_bits)


def joint_entropy(
    logits: Tensor, valid: Tensor, sizes: tuple[int, ...], group: dist.ProcessGroup | None = None
) -> Tensor:
    """Σ_g H(p̄_g) in nats over the groups g of bits, with p̄_g of equation (1).

    Args:
        logits: ℓ [N, L]; bit i of row n is one with probability σ(ℓ_ni).
        valid: [N] bool, the rows that count. The others may hold any numbers but NaN.
        sizes: the numbers of bits in the groups, in order, larger ones first; their sum is L.
        group: the ranks over whose rows the mean is taken, by one all-reduce here and one in the backward; None
            for the rows of this rank.

    Returns: 0-d; zero if no row counts. A probability that underflows contributes neither entropy nor gradient.
    """
    widths = sorted(set(sizes), reverse=True)
    counts = [len([size for size in sizes if size == width]) for width in widths]
    parts = torch.split(logits, [width * count for width, count in zip(widths, counts, strict=True)], -1)
    totals = [
        _pattern_sums(part.reshape(part.shape[0], count, width), valid)
        for width, count, part in zip(widths, counts, parts, strict=True)
    ]
    count = valid.sum().to(logits.dtype)
    if group is not None:
        *totals, count = differentiable_sum_over_ranks(group, *totals, count)
    return torch.stack([_entropy(total / count.clamp(min=1)).sum() for total in totals]).sum()


def _pattern_sums(logits: Tensor, valid: Tensor) -> Tensor:
    """N p̄ by equation (2), [G, 2^b], for logits [N, G, b]."""
    half = (logits.shape[-1] + 1) // 2
    first, second = (_patterns(part) for part in logits.tensor_split((half,), -1))
    counted = first * valid[:, None, None]
    return torch.einsum("nga,ngb->gab", counted, second).flatten(-2)


def _patterns(logits: Tensor) -> Tensor:
    """The probabilities [..., 2^h] of all patterns of h bits with logits [..., h], in the order of numbers."""
    if not logits.shape[-1]:
        return logits.new_ones((*logits.shape[:-1], 1))
    return _products(torch.stack([-logits, logits], -1).sigmoid())


def _products(tables: Tensor) -> Tensor:
    """All products of one number from each of m tables [..., m, w], [..., w^m]; the first table's place is the
    lowest digit. Tables are multiplied in pairs, in about log₂ m operations."""
    count = tables.shape[-2]
    if count == 1:
        return tables.squeeze(-2)
    paired, *rest = torch.split(tables, count // 2 * 2, -2)
    low, high = torch.unflatten(paired, -2, (count // 2, 2)).unbind(-2)
    result = _products((high[..., :, None] * low[..., None, :]).flatten(-2))
    for table in rest:  # the last of an odd number
        result = (table.squeeze(-2)[..., :, None] * result[..., None, :]).flatten(-2)
    return result


def _entropy(p: Tensor) -> Tensor:
    """H [...] in nats of probabilities p [..., C].

    −p log p of a probability near one would have lost its digits: there it is −(1 − r) log(1 − r) with the sum r
    of all others.
    """
    is_largest = torch.arange(p.shape[-1], device=p.device) == p.argmax(-1, keepdim=True)
    others, largest = p.masked_fill(is_largest, 0.0), p.masked_fill(~is_largest, 0.0).sum(-1)
    rest = others.sum(-1)
    near_one = (1 - rest) * torch.log1p(-rest.clamp(max=0.5))
    return -_p_log_p(others).sum(-1) - near_one.where(rest < 0.5, _p_log_p(largest))


def _p_log_p(p: Tensor) -> Tensor:
    positive = p.where(p > 0, 1.0)
    return positive * positive.log()
