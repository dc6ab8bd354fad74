"""Codes of one bit per channel: their signs, their entropies, and the loss that LFQ and BSQ share.

Softmax over all 2^L codes c ∈ {−v, v}^L of −‖z − c‖² / T is a product over channels: the terms z² and c² = v² are
the same for all codes, and what remains, 2 z·c / T, is a sum over channels. So p(c|z) = Π_i σ(ℓ_i)^{b_i}
σ(−ℓ_i)^{1−b_i} with bits b_i and logits ℓ_i = 4 v z_i / T. The entropy of p(·|z) is the sum of the bits'
entropies, and no table of 2^L codes is needed. The mean of such products over a batch is not a product; the sum
of its bits' entropies is an upper bound of its entropy, which it attains if the bits are independent.
"""

import abc
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from quantizers.core.arguments.checks import Finite, Positive, Size, Weight, check_at_least
from quantizers.core.arguments.options import checked
from quantizers.core.gradients import Gradient, resolve_gradient
from quantizers.core.layout import Rows
from quantizers.core.output import QuantizerOutput
from quantizers.core.parallel import ProcessGroup, Ranks
from quantizers.scalar.grid import GridQuantizer, name_of
from quantizers.scalar.joint_entropy import group_sizes, joint_entropy

SATURATED = 1000.0  # a logit at which σ(−ℓ) is zero even in float64, as for all larger ones and ∞


def bit_entropy(logits: Tensor) -> Tensor:
    """The entropy in nats of a bit that is one with probability σ(ℓ): ln(1 + e^−|ℓ|) + |ℓ| σ(−|ℓ|)."""
    size = logits.abs().clamp(max=SATURATED)
    return F.softplus(-size) + size * torch.sigmoid(-size)


def bits_for(codebook_size: int) -> int:
    """log₂ of a codebook size. Raises: ValueError unless it is a power of two from 2 to 2⁶³."""
    codebook_size = check_at_least("codebook_size", codebook_size, 2)
    if codebook_size > 2**63:
        raise ValueError(f"codebook_size is {codebook_size}, expected at most 2**63, int64's range")
    bits = codebook_size.bit_length() - 1
    if codebook_size != 2**bits:
        raise ValueError(
            f"codebook_size is {codebook_size}, expected a power of two; the nearest are {2**bits} and "
            f"{2 ** (bits + 1)}"
        )
    return bits


class BinaryQuantizer(GridQuantizer):
    """The code v · sign(u) of a vector u, where a subclass defines u and v; index = Σ_i 2^i · [u_i > 0], i from 0.

        loss = entropy_weight · (mean_n H(p_n) − diversity · Σ_i H(mean_n p_ni))
               + commitment_weight · mean (u − sg[q])²

    p_n is the softmax of −‖u_n − c‖² / T over all codes c, p_ni is its bit i, and H is in nats. The sums are over
    the channels of a vector, the last mean is over vectors and channels. Memory is O(N·L) for any codebook size.
    """

    @checked
    def __init__(
        self,
        dim: Size,
        codebook_size: int,
        *,
        channel_dim: int,
        gradient: str | Gradient,
        entropy_weight: Finite,
        diversity: Weight,
        temperature: Positive,
        commitment_weight: Weight,
        group_bits: Size | None,
        process_group: ProcessGroup,
    ) -> None:
        self.ranks = Ranks(process_group)
        self.group_sizes = group_sizes(bits_for(codebook_size), group_bits)
        super().__init__(dim, (2,) * bits_for(codebook_size), channel_dim=channel_dim)
        self.gradient = resolve_gradient(gradient)
        self.entropy_weight = entropy_weight
        self.diversity = diversity
        self.temperature = temperature
        self.commitment_weight = commitment_weight

    @property
    @abc.abstractmethod
    def _value(self) -> float:
        """v > 0, the magnitude of each channel of a code."""

    @abc.abstractmethod
    def _vectors(self, z: Tensor) -> Tensor:
        """The vectors u [N, L] that are quantized for z [N, L]."""

    def _quantize(self, rows: Rows) -> QuantizerOutput:
        z, valid = rows.vectors, rows.valid
        u = self._vectors(z)
        digits = (u > 0).to(torch.int64)
        codes = self._values(digits, u.dtype)
        loss = self._entropy_loss(u, valid) + self._commitment_loss(u, codes, valid)
        return QuantizerOutput(self.gradient(u, codes), self._index(digits), loss)

    def _entropy_loss(self, u: Tensor, valid: Tensor) -> Tensor:
        logits = 4 * self._value / self.temperature * u
        each = bit_entropy(logits).sum(-1).where(valid, 0.0).sum() / valid.sum().clamp(min=1)
        group = self.ranks.group() if self.training else None
        return self.entropy_weight * (each - self.diversity * joint_entropy(logits, valid, self.group_sizes, group))

    def _commitment_loss(self, u: Tensor, codes: Tensor, valid: Tensor) -> Tensor:
        error = u - codes
        # Divide first: the mean may fit float32 where the sum does not, and 0 · ∞ would be NaN.
        weight = self.commitment_weight / (valid.sum().clamp(min=1) * self.code_dim).to(error.dtype)
        return (weight * error * error).where(valid[:, None], 0.0).sum()

    def extra_repr(self) -> str:
        weights = ("entropy_weight", "diversity", "temperature", "commitment_weight")
        shown = ", ".join(f"{name}={getattr(self, name):.4g}" for name in weights)
        return f"{super().extra_repr()}, gradient={name_of(self.gradient)!r}, {shown}"

    @property
    def _index_rule(self) -> dict[str, Any]:
        return {**super()._index_rule, "value": self._value}

    def _encode(self, z: Tensor) -> Tensor:
        return self._index((self._vectors(z) > 0).to(torch.int64))

    def _values(self, digits: Tensor, dtype: torch.dtype) -> Tensor:
        return (2 * digits - 1).to(dtype) * self._value
