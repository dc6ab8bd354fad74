"""Vector quantization whose codes are moving averages of the vectors that chose them."""

from typing import Unpack

import torch
from torch import Tensor

from quantizers.clustering.kmeans import kmeans
from quantizers.codebooks.nearest import NearestCodeQuantizer
from quantizers.codebooks.options import CommitmentOptions
from quantizers.core.arguments.checks import Positive, Share, Size
from quantizers.core.arguments.options import checked
from quantizers.core.codebook import check_codes, init_codes_, smoothed_codes, smoothed_sizes
from quantizers.core.parallel import Averages, ProcessGroup, Ranks, ema_over_ranks
from quantizers.core.recompute import choose, is_recomputing
from quantizers.core.registry import register
from quantizers.core.state.moving import move
from quantizers.core.state.writing import write, write_rows
from quantizers.kernels.modes import is_transformed
from quantizers.kernels.ops.sums import code_sums, ema_code_sums

WRITTEN = 2.0**-14  # relative to a code: what is off by more than that from its averages was set, not rounded


@register("ema_vq")
class EMAVectorQuantizer(NearestCodeQuantizer):
    """EMA VQ: the codebook gets no gradient; it follows exponential moving averages.

    van den Oord et al. 2017 (arXiv 1711.00937), appendix A.1; Razavi et al. 2019 (arXiv 1906.00446). With n_i
    vectors of sum s_i at code i in this batch: N_i ← γN_i + (1−γ)n_i, m_i ← γm_i + (1−γ)s_i, e_i = m_i / N̂_i,
    where N̂_i = (N_i + ε) / (N + Kε) · N. loss = commitment_weight · mean (z − sg[e])² over vectors and channels.

    The state moves once in each forward in training mode, with or without `no_grad`, as BatchNorm's does. With
    gradients accumulated over four forwards that is four times a step; after `accumulate(4)` it is once. It does
    not move in the second forward that activation checkpointing runs inside the backward; that one sees the codes
    of the last forward before it, which is its own where each forward has its backward before the next.
    **`quantized` is made of the codes before that step**: decode(indices) after a forward in training gives the
    codes where the step has moved them.

    Masked vectors and vectors that are not finite do not count; a batch without any other leaves the state as it
    is, and a code whose vectors' sum leaves float32 takes none of them. A code that is no longer chosen decays
    towards the origin once N_i falls below ε.

    Data parallel: in each such forward n_i and s_i are summed over the ranks of `process_group`, so each of them
    must run it, if with an empty batch; also under DDP's `no_sync`, which is about gradients. The state is then
    bit-equal on all ranks, and that of one process on the whole batch up to the order of summation. Ranks that
    begin with different codes (FSDP leaves buffers as they are, DDP does not) have those of the first rank after a
    step in which a vector counts and no sum leaves float32. Evaluation needs no other rank.

    Args:
        dim: channels of x. codebook_size: K ≥ 1.
        code_dim: channels of a code, default `dim`. channel_dim: axis of x's channels.
        decay: γ in [0, 1]; 1 leaves the codes as they are, as `freeze` does. epsilon: ε > 0 of the smoothing.
        distance: "euclidean", "cosine" for codes on the unit sphere, or "angle" for a search by angle alone.
        gradient: "straight_through", "rotation", "reflection" or a function (z, codes) → [..., D].
        commitment_weight: see above.
        process_group: the ranks to sum over: "world" for all, a `torch.distributed` group, or None for each rank
            by itself. May be assigned later.
        regularizers: losses on vectors and codes that are added, see `quantizers.regularizers`; they move the
            vectors, not the codes.

    State (float32 under any module dtype): embedding e [K, code_dim], cluster_size N [K], embedding_sum m
    [K, code_dim]. Where something else than a step has set a row of `embedding` (a copy into it, a checkpoint of
    codes alone), the next step takes m = N̂ e for that row, so that it is not undone.

    Shapes: x [..., dim] → quantized [..., dim], indices [...], loss [].

    Raises: ValueError for a size below 1, decay outside [0, 1], ε ≤ 0, unknown distance or gradient, a
    regularizer that moves codes alone; TypeError for another process_group.
    """

    embedding: Tensor
    cluster_size: Tensor
    embedding_sum: Tensor
    _accumulation: int = 1

    @checked
    def __init__(
        self,
        dim: Size,
        codebook_size: Size,
        *,
        decay: Share = 0.99,
        epsilon: Positive = 1e-5,
        process_group: ProcessGroup = "world",
        **options: Unpack[CommitmentOptions],
    ) -> None:
        super().__init__(dim, codebook_size, **options)
        for regularizer in self.regularizers:
            if regularizer.moves == "codes":
                raise ValueError(
                    f"regularizers hold {regularizer!r}, which moves codes alone, and these are moving averages; "
                    "expected regularizers that move vectors too"
                )
        self.ranks = Ranks(process_group)
        self.decay = decay
        self.epsilon = epsilon
        shape = (codebook_size, self.code_dim)
        self.register_buffer("embedding", torch.empty(shape))
        self.register_buffer("cluster_size", torch.empty(codebook_size))
        self.register_buffer("embedding_sum", torch.empty(shape))

    @property
    def process_group(self) -> str | None:
        """The name of the ranks to sum over, None for each by itself; assign as in the constructor."""
        return self.ranks.name

    @process_group.setter
    def process_group(self, process_group: ProcessGroup) -> None:
        self.ranks = Ranks(process_group)

    def reset_parameters(self) -> None:
        """Draw the codes from N(0, 1/code_dim), see `init_codes_`; each counts as one vector seen."""
        self._restart(init_codes_(self.embedding))

    @torch.no_grad()
    def set_codebook(self, codes: Tensor) -> None:
        """Replace all codes by `codes` [K, code_dim], and their averages with them: one vector seen each.

        Raises: ValueError for another shape.
        """
        self._restart(check_codes(codes, self.codebook_size, self.code_dim))

    @torch.no_grad()
    def set_averages(self, cluster_size: Tensor, embedding_sum: Tensor) -> None:
        """Go on from the averages N [K] and m [K, code_dim] of another run. The codes stay until the next step.

        Raises: ValueError for other shapes, values that are not finite, N below 0.
        """
        for name, value in (("cluster_size", cluster_size), ("embedding_sum", embedding_sum)):
            expected = tuple(getattr(self, name).shape)
            if tuple(value.shape) != expected:
                raise ValueError(f"{name} has shape {tuple(value.shape)}, expected {expected}")
            if not value.isfinite().all():
                raise ValueError(f"{name} holds values that are not finite")
        if (cluster_size < 0).any():
            raise ValueError("cluster_size holds numbers below 0, expected how many vectors chose each code")
        self.cluster_size.copy_(cluster_size)
        self.embedding_sum.copy_(embedding_sum)

    def _initialize(self, z: Tensor, process_group: ProcessGroup) -> None:
        self.set_codebook(kmeans(z, self.codebook_size, distance=self.distance, process_group=process_group))

    @property
    def has_table(self) -> bool:
        """True."""
        return True

    @torch.no_grad()
    def move_codes(self, places: Tensor, targets: Tensor, shares: Tensor) -> None:
        """See Quantizer. N ← (1 − share) N + share, and m = N · e: a code that is replaced counts as one vector
        seen, and the next step does not undo what was moved."""
        shares = shares.to(self.embedding)
        codes = self._to_value_space(
            torch.lerp(self.embedding[places], targets.to(self.embedding), shares[:, None])
        )
        sizes = torch.lerp(self.cluster_size[places], torch.ones_like(shares), shares)
        write_rows(self, "embedding", places, codes)
        self._previous().index_copy_(0, places, codes)
        self.cluster_size[places] = sizes
        self.embedding_sum[places] = sizes[:, None] * codes

    @torch.no_grad()
    def _restart(self, codes: Tensor) -> None:
        write(self, "embedding", self._to_value_space(codes.to(self.embedding.dtype)))
        self._previous().copy_(self.embedding)
        self.cluster_size.fill_(1)
        self.embedding_sum.copy_(self.embedding)

    def _previous(self) -> Tensor:
        """The codes that the last forward in training used, before it moved them."""
        return self._step_tensor("previous_embedding", self.embedding)

    def _codes(self) -> Tensor:
        # A transform knows no activation checkpointing; frozen codes are those of the forward before, and that has
        # left none behind.
        if not (self.training and self.observes) or is_transformed():
            return self.embedding
        return choose(is_recomputing(self.embedding), self._previous(), self.embedding)

    @property
    def observes(self) -> bool:
        """Whether the averages move in a forward in training: unless they are frozen."""
        return not self.frozen

    def _observe(self, z: Tensor, indices: Tensor) -> None:
        recomputing = is_recomputing(self.embedding)
        if recomputing is True:
            return
        average = self._averages if self._accumulation == 1 else self._accumulated
        cluster_size, embedding_sum, moved = average(self._to_value_space(z), indices, recomputing)
        codes = smoothed_codes(cluster_size, embedding_sum, self.epsilon)
        if not is_transformed():
            self._previous().copy_(choose(recomputing, self._previous(), self.embedding))  # before it is moved
        # A batch without a vector that counts moves no average, and must not round the codes anew either.
        moves = {
            "embedding": codes.where(moved, self.embedding),
            "cluster_size": cluster_size,
            "embedding_sum": embedding_sum,
        }
        for name, value in moves.items():
            write(self, name, choose(recomputing, getattr(self, name), value))

    def _sums_of_codes(self) -> Tensor:
        """m [K, code_dim]: the averages' own, and N̂ e for codes that are not what those give."""
        smoothed = smoothed_sizes(self.cluster_size, self.epsilon)[:, None]
        averaged, codes = self._to_value_space(self.embedding_sum / smoothed), self._to_value_space(self.embedding)
        scale = torch.maximum(averaged.abs(), codes.abs()).amax(-1, keepdim=True)
        is_set = ((averaged - codes).abs() > WRITTEN * scale).any(-1, keepdim=True)
        return (smoothed * self.embedding).where(is_set, self.embedding_sum)

    def _averages(self, z: Tensor, indices: Tensor, _: bool | Tensor) -> Averages:
        """The new averages N [K] and m [K, code_dim], and whether they moved, 0-d bool."""
        group, sums = self.ranks.group(), self._sums_of_codes()
        if group is not None:
            counts = code_sums(z[None], indices[None], self.codebook_size)
            return ema_over_ranks(*counts, self.cluster_size, sums, self.decay, group)
        averages = ema_code_sums(z[None], indices[None], self.cluster_size[None], sums[None], self.decay)
        cluster_size, embedding_sum = (average[0] for average in averages)
        moved = (cluster_size != self.cluster_size).any() | (embedding_sum != sums).any()
        return cluster_size, embedding_sum, moved

    def _set_accumulation(self, forwards: int) -> None:
        self._accumulation = forwards
        for name in ("counts", "sums", "forwards"):
            self._step_tensors.pop(name, None)
        if forwards > 1:
            self._gathered()

    def _gathered(self) -> tuple[Tensor, Tensor, Tensor]:
        """Counts [K] and sums [K, code_dim] of the vectors since the last step, and of how many forwards, []."""
        counts, sums = (
            self._step_tensor("counts", self.cluster_size),
            self._step_tensor("sums", self.embedding_sum),
        )
        return counts, sums, self._step_tensor("forwards", self.cluster_size[0])

    def _accumulated(self, z: Tensor, indices: Tensor, recomputing: bool | Tensor) -> Averages:
        """`_averages` of all vectors since the last step where this forward completes one; else the old ones."""
        own = code_sums(z[None], indices[None], self.codebook_size)
        gathered = self._gathered()
        counts, sums = (held + new[0] for held, new in zip(gathered, own, strict=False))
        forwards = gathered[2] + 1
        completes = forwards >= self._accumulation
        for held, value in zip(gathered, (counts, sums, forwards), strict=True):
            move(held, choose(recomputing, held, value.where(~completes, 0.0)))
        old = self._sums_of_codes()
        averages = ema_over_ranks(counts[None], sums[None], self.cluster_size, old, self.decay, self.ranks.group())
        cluster_size, embedding_sum, moved = averages
        moved = moved & completes
        return cluster_size.where(moved, self.cluster_size), embedding_sum.where(moved, old), moved
