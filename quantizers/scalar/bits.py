"""Codes of one bit per channel: their signs, their entropies, and the loss that LFQ and BSQ share.

The softmax over all 2^L codes c ∈ {−v, v}^L of −‖u − c‖² / T is a product over channels: the terms u² and c² = v²
are the same for all codes, and what remains, 2 u·c / T, is a sum over channels. So

    p(c|u) = Π_i σ(ℓ_i)^{b_i} σ(−ℓ_i)^{1−b_i},  ℓ_i = 4 v u_i / T                     (1)

with the bits b_i of c. Let the bits be split into groups g, and p_g(·|u) be the distribution of the bits of a
group, the product (1) over its channels alone. The loss has two entropies for each group,

    Σ_g [mean_n H(p_g(·|u_n)) − γ H(mean_n p_g(·|u_n))]                               (2)

The first is a sum over bits, whatever the groups are, because the bits of one vector are independent:

    Σ_g H(p_g(·|u)) = Σ_i h(ℓ_i),  h(ℓ) = ln(1 + e^−|ℓ|) + |ℓ| σ(−|ℓ|)                (3)

The mean over a batch of such products is not a product. Its entropy over all patterns of a group's bits is at most
the sum of the single bits' entropies, and less if bits go together; see `quantizers.scalar.joint_entropy`.
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
from quantizers.scalar.grid import GridQuantizer, gradient_in_repr
from quantizers.scalar.joint_entropy import group_sizes, joint_entropy

SATURATED = 1000.0  # a logit at which σ(−ℓ) is zero even in float64, as for all larger ones and ∞


def bit_entropy(logits: Tensor) -> Tensor:
    """h(ℓ) of equation (3): the entropy in nats of a bit that is one with probability σ(ℓ)."""
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

        loss = entropy_weight · Σ_g (mean_n H(p_g(·|u_n)) − diversity · H(mean_n p_g(·|u_n)))
               + commitment_weight · mean (u − sg[q])²

    with equations (1) to (3) of this module, in nats. The groups g are `group_sizes`; the last mean is over
    vectors and channels. With b bits in the largest group, memory is O(N·L + N·2^(b/2) + 2^b).
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
        bits = bits_for(codebook_size)
        group_sizes(bits, group_bits)  # raises
        super().__init__(dim, (2,) * bits, channel_dim=channel_dim)
        self.gradient = resolve_gradient(gradient)
        self.entropy_weight = entropy_weight
        self.diversity = diversity
        self.temperature = temperature
        self.commitment_weight = commitment_weight
        self.group_bits = group_bits
        self.ranks = Ranks(process_group)

    @property
    def group_sizes(self) -> tuple[int, ...]:
        """How many bits each group has over which the batch entropy is taken, in order of the channels."""
        return group_sizes(self.code_dim, self.group_bits)

    @property
    def process_group(self) -> str | None:
        """The name of the group to sum over, or None for this rank alone; accepts what the constructor accepts."""
        return self.ranks.name

    @process_group.setter
    def process_group(self, process_group: ProcessGroup) -> None:
        self.ranks = Ranks(process_group)

    @property
    def loss_depends_on_batch(self) -> bool:
        """True: the batch entropy."""
        return True

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
        batch = joint_entropy(logits, valid, self.group_sizes, group)
        return self.entropy_weight * (each - self.diversity * batch)

    def _commitment_loss(self, u: Tensor, codes: Tensor, valid: Tensor) -> Tensor:
        error = u - codes
        # Divide first: the mean may fit float32 where the sum does not, and 0 · ∞ would be NaN.
        weight = self.commitment_weight / (valid.sum().clamp(min=1) * self.code_dim).to(error.dtype)
        return (weight * error * error).where(valid[:, None], 0.0).sum()

    def extra_repr(self) -> str:
        weights = ("entropy_weight", "diversity", "temperature", "commitment_weight")
        shown = ", ".join(f"{name}={getattr(self, name):.4g}" for name in weights)
        groups = f"group_bits={self.group_bits}" if self.group_bits else f"group_sizes={self.group_sizes}"
        ranks = ", process_group=None" if self.process_group is None else ""
        return f"{super().extra_repr()}{gradient_in_repr(self.gradient)}, {shown}, {groups}{ranks}"

    @property
    def _index_rule(self) -> dict[str, Any]:
        return {**super()._index_rule, "value": self._value}

    def _encode(self, z: Tensor) -> Tensor:
        return self._index((self._vectors(z) > 0).to(torch.int64))

    def _values(self, digits: Tensor, dtype: torch.dtype) -> Tensor:
        return (2 * digits - 1).to(dtype) * self._value
