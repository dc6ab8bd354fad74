"""FSQ of channels that are normalized by their running mean and variance."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from quantizers.clustering.kmeans import kmeans
from quantizers.core.arguments.checks import Level, Share, Size
from quantizers.core.arguments.options import checked
from quantizers.core.gradients import Gradient
from quantizers.core.layout import Rows
from quantizers.core.output import QuantizerOutput
from quantizers.core.parallel import ProcessGroup, Ranks, total
from quantizers.core.recompute import choose, is_recomputing
from quantizers.core.registry import register
from quantizers.core.state.half_state import widened
from quantizers.core.state.moving import move
from quantizers.core.state.writing import write
from quantizers.kernels.common.modes import is_transformed
from quantizers.kernels.sums.operation import code_sums
from quantizers.scalar.fsq import FSQ, Bound

WIDTH = 3.5
"""The step between levels is WIDTH √(ln L) / L standard deviations.

For L from 2 to 64 that is within 10 % of the step that minimizes the mean square error of L equidistant levels for
N(0, 1) (Max: Quantizing for Minimum Distortion, 1960).
"""
EPSILON = 1e-10  # added to a variance: a channel that never varies has a scale above the rounding of values near 1


class NormalizedFSQ(FSQ):
    """FSQ whose levels follow each channel's running mean and standard deviation.

    FSQ's levels stand where its bound puts them, whatever the vectors are, and residuals that shrink from stage to
    stage fall on fewer and fewer of them. Here channel i is normalized, rounded by FSQ, and mapped back:

        u_i = (z_i − m_i) / s_i, s_i = ⌊L_i/2⌋ · 3.5 √(ln L_i) / L_i · √(v_i + 10⁻¹⁰)
        value_i = m_i + s_i · FSQ(u)_i

    with m_i = μ_i for odd L_i, and μ_i + s_i / L_i for even L_i, whose levels in FSQ have the mean −1/L_i. Both
    maps use the same state, so the value follows from the index alone. A layer normalization, as the paper names
    it, takes mean and deviation from each vector, which a decoder that has only indices lacks; but the paper also
    calls its parameters constants that are fixed after training. Here they are moving averages over training. A
    forward in training uses μ, v and N as they are; then, for n vectors with mean deviation a = mean (z − μ) and
    mean square b = mean (z − μ)²,

        N ← γ N + (1 − γ) n, w = (1 − γ) n / N
        μ ← μ + w a
        v ← (1 − w) v + w (b − w a²)

    N starts at 0, so that μ and v are the mean and the variance of all vectors so far, with weights that fall by γ
    in each step; the first forward uses 0 and 1. The loss is zero. The gradient of u is FSQ's: with
    bound="clamp" the gradient of z is the decoder's, and zero beyond the outermost levels.

    **When the state moves**, under activation checkpointing, `accumulate` and `freeze`, and on several ranks, is
    as in EMAVectorQuantizer; but ranks that start from different averages stay different. Masked vectors and
    vectors that are not finite do not count. A channel whose sum of squares leaves float32 keeps its averages.

    Example:
        >>> quantizer = NormalizedFSQ(2, levels=[5, 5], decay=0.9)
        >>> x = 100 + torch.tensor([0.1, 10.0]) * torch.randn(1000, 2)
        >>> for _ in range(200):
        ...     quantized, indices, loss = quantizer(x)
        >>> ((quantized - x).square().mean(0) / x.var(0) < 0.2).all()
        tensor(True)

    Args:
        dim: channels of x.
        levels, channel_dim, gradient: as in FSQ.
        bound: of u, as in FSQ.
        decay: γ in [0, 1]; 1 leaves the statistics unchanged, as `freeze` does.
        process_group: the ranks to sum over: "world" for all, a `torch.distributed` group, or None for this rank
            alone.

    State (float32 under any module dtype): moments [2, d], μ and v; seen [], N.

    Shapes: x [..., dim] → quantized [..., dim], indices [...], loss [] (zero).

    Raises: ValueError as FSQ, and for decay outside [0, 1]; TypeError for another process_group.

    Source: Zhu et al.: Robust Residual Finite Scalar Quantization, 2025 (arXiv 2508.15860).
    """

    moments: Tensor
    seen: Tensor
    _accumulation: int = 1

    @checked
    def __init__(
        self,
        dim: Size,
        levels: Sequence[Level],
        *,
        channel_dim: int = -1,
        bound: Bound = "clamp",
        gradient: str | Gradient = "straight_through",
        decay: Share = 0.99,
        process_group: ProcessGroup = "world",
    ) -> None:
        super().__init__(dim, levels, channel_dim=channel_dim, bound=bound, gradient=gradient)
        self.ranks = Ranks(process_group)
        self.decay = decay
        self.register_buffer("moments", torch.empty(2, self.code_dim))
        self.register_buffer("seen", torch.empty(()))

    @property
    def process_group(self) -> str | None:
        """The name of the group to sum over, or None for this rank alone; accepts what the constructor accepts."""
        return self.ranks.name

    @process_group.setter
    def process_group(self, process_group: ProcessGroup) -> None:
        self.ranks = Ranks(process_group)

    def reset_parameters(self) -> None:
        """Start from mean 0 and variance 1, with no vector seen."""
        self._restart(torch.stack([torch.zeros(self.code_dim), torch.ones(self.code_dim)]), 0)

    @torch.no_grad()
    def _restart(self, moments: Tensor, seen: float) -> None:
        write(self, "moments", moments.to(self.moments))
        self._previous().copy_(self.moments)
        write(self, "seen", torch.full_like(self.seen, seen))

    def _initialize(self, z: Tensor, process_group: ProcessGroup) -> None:
        """Start from the mean and variance of the vectors, which count as one vector."""
        mean = kmeans(z, 1, process_group=process_group)
        variance = kmeans((z - mean).square(), 1, process_group=process_group)
        self._restart(torch.cat([mean, variance]), 1)

    @property
    def observes(self) -> bool:
        """Whether a forward in training moves the statistics: True unless they are frozen."""
        return not self.frozen

    @property
    def _index_rule(self) -> dict[str, Any]:
        return {**super()._index_rule, "width": WIDTH}

    def _quantize(self, rows: Rows) -> QuantizerOutput:
        mean, scale = self._statistics(rows.vectors.dtype)
        output = super()._quantize(rows.with_vectors((rows.vectors - mean) / scale))
        return QuantizerOutput(output.quantized * scale + mean, output.indices, output.loss)

    def _encode(self, z: Tensor) -> Tensor:
        mean, scale = self._statistics(z.dtype)
        return super()._encode((z - mean) / scale)

    def _values(self, digits: Tensor, dtype: torch.dtype) -> Tensor:
        mean, scale = self._statistics(dtype)
        return super()._values(digits, dtype) * scale + mean

    def _statistics(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """m and s, [d] each."""
        moments = self.moments
        if self.training and self.observes and not is_transformed():  # transforms do not support checkpointing
            moments = choose(is_recomputing(moments), self._previous(), moments)
        mean, variance = widened(moments).to(dtype).unbind()
        levels = self._levels(moments).to(dtype)
        step = WIDTH * levels.log().sqrt() / levels * (variance + EPSILON).sqrt()
        return mean + ((levels + 1) % 2) * step / 2, (levels // 2) * step

    def _previous(self) -> Tensor:
        """The moments that the last forward in training used, before that forward moved them."""
        return self._step_tensor("previous_moments", self.moments)

    def _observe(self, z: Tensor, indices: Tensor) -> None:
        recomputing = is_recomputing(self.moments)
        if recomputing is True:
            return
        counts, sums = self._gathered_sums(z, indices, recomputing)
        group = self.ranks.group()
        counts, sums = total(group, counts, sums)
        seen = self.decay * self.seen + (1 - self.decay) * counts
        share = (1 - self.decay) * counts / seen.clamp(min=torch.finfo(seen.dtype).tiny)
        deviation, square = (sums / counts.clamp(min=1)).unbind()
        mean = self.moments[0] + share * deviation
        variance = (1 - share) * self.moments[1] + share * (square - share * deviation.square()).clamp(min=0)
        moments = torch.stack([mean, variance])
        counts_in = (counts > 0) & moments.isfinite().all(0)
        if not is_transformed():
            self._previous().copy_(choose(recomputing, self._previous(), self.moments))  # before the move
        moments = moments.where(counts_in, self.moments)
        write(self, "moments", choose(recomputing, self.moments, moments))
        write(self, "seen", choose(recomputing, self.seen, seen.where(counts > 0, self.seen)))

    def _sums(self, z: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The number of vectors that count [], and the sums of z − μ and of its square [2, d]."""
        deviation = z - self.moments[0].to(z.dtype)
        counts, sums = code_sums(
            torch.cat([deviation, deviation.square()], -1)[None], (indices.clamp(max=0))[None], 1
        )
        return counts[0, 0].to(self.seen), sums[0, 0].reshape(2, -1).to(self.moments)

    def _set_accumulation(self, forwards: int) -> None:
        self._accumulation = forwards
        for name in ("counts", "sums", "forwards"):
            self._step_tensors.pop(name, None)

    def _gathered_sums(self, z: Tensor, indices: Tensor, recomputing: bool | Tensor) -> tuple[Tensor, Tensor]:
        """`_sums` of all vectors since the last step if this forward completes one; else zeros."""
        counts, sums = self._sums(z, indices)
        if self._accumulation == 1:
            return counts, sums
        gathered = [
            self._step_tensor(name, like)
            for name, like in (("counts", self.seen), ("sums", self.moments), ("forwards", self.seen))
        ]
        added = [old + new for old, new in zip(gathered, (counts, sums, torch.ones_like(counts)), strict=True)]
        completes = added[2] >= self._accumulation
        for buffer, value in zip(gathered, added, strict=True):
            move(buffer, choose(recomputing, buffer, value.where(~completes, 0.0)))
        return added[0].where(completes, 0.0), added[1].where(completes, 0.0)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, decay={self.decay}"


register("normalized_fsq", NormalizedFSQ.from_options)
