"""Vector quantization whose codes are moving averages of the vectors that chose them."""

import torch
from torch import Tensor
from typing_extensions import Unpack

from quantizers.codebooks.given import GivenCodes, size_of
from quantizers.codebooks.nearest import NearestCodeQuantizer
from quantizers.codebooks.options import CommitmentOptions
from quantizers.core.arguments.checks import Frozen, Positive, Share, Size
from quantizers.core.arguments.options import checked
from quantizers.core.codebook import check_codes
from quantizers.core.parallel import Averages, ProcessGroup, Ranks, ema_over_ranks
from quantizers.core.recompute import choose, is_recomputing
from quantizers.core.registry import register
from quantizers.core.state.moving import move
from quantizers.core.state.writing import write, write_rows
from quantizers.kernels.averages.operation import average_codes_, runs_in_place
from quantizers.kernels.averages.reference import moved_averages, smoothed_codes, sums_of_codes
from quantizers.kernels.common.modes import is_transformed
from quantizers.kernels.sums.operation import code_sums


@register("ema_vq")
class EMAVectorQuantizer(GivenCodes):
    """EMA VQ: nearest code, with codes that are moving averages of the vectors that chose them.

    Use it instead of VQ's codebook loss: the codes get no gradient and follow the encoder at the rate that
    `decay` sets, whatever the optimizer does.

    van den Oord et al. 2017 (arXiv 1711.00937), appendix A.1, with the smoothing of Razavi et al. 2019 (arXiv
    1906.00446). Let n_i vectors of this batch, with the sum s_i, choose code i. Then

        N_i ← γ N_i + (1 − γ) n_i                          (6)
        m_i ← γ m_i + (1 − γ) s_i                          (7)
        e_i = m_i / N̂_i,  N̂_i = (N_i + ε) / (N + Kε) · N   (8, smoothed)
        loss = commitment_weight · mean (z − sg[e])²

    with N = Σ N_i and the mean over vectors and channels.

    **When the state moves.** It moves once in each forward in training mode, with or without `no_grad`, as
    BatchNorm's does. Gradients accumulated over four forwards thus move it four times per optimizer step; after
    `accumulate(4)` they move it once. It does not move in the second forward that activation checkpointing runs
    during the backward. That second forward sees the codes of the last forward before it, which is the right one
    where each backward precedes the next forward. **`quantized` is made of the codes before the step**: after a
    forward in training, decode(indices) gives the moved codes.

    Masked vectors and vectors that are not finite do not count. A batch without any other vector leaves the state
    unchanged. A code whose vectors have a sum beyond float32 learns from none of them. A code that is no longer
    chosen decays towards the origin once N_i falls below ε.

    **Data parallel.** In each such forward n_i and s_i are summed over the ranks of `process_group`, so every rank
    must run it, even with an empty batch, and also under DDP's `no_sync`, which concerns gradients. The state is
    then bit-equal on all ranks, and equals the state of one process on the whole batch up to the order of
    summation. Ranks that start with different codes (FSDP leaves buffers alone, DDP does not) have the first
    rank's codes after a step in which a vector counts and no sum leaves float32. Evaluation needs no other rank.

    Example:
        >>> quantizer = EMAVectorQuantizer(dim=16, codebook_size=64, decay=0.9)
        >>> before = quantizer.codebook.clone()
        >>> quantized, indices, loss = quantizer(torch.randn(100, 16))
        >>> torch.equal(quantized, before[indices]), torch.equal(quantizer.codebook, before)
        (True, False)

    Args:
        dim: channels of x. codebook_size: K ≥ 1; may be left out where `codebook` is given.
        codebook: the first codes, [K, code_dim], finite and of a floating dtype; see VectorQuantizer.
        frozen: whether the codes stay: True, False, or a mask, bool [K], of those that stay. Codes of a mask are
            bit-equal after any number of steps, and so are their averages.
        code_dim: channels of a code, default `dim`. channel_dim: axis of x's channels.
        decay: γ in [0, 1]; 1 leaves the codes unchanged, as `freeze` does. epsilon: ε > 0 of the smoothing.
        distance: "euclidean", "cosine" for codes on the unit sphere, or "angle" for a search by angle alone.
        gradient: "straight_through", "rotation", "reflection" or a function (z, codes) → [..., D].
        commitment_weight: see above.
        process_group: the ranks to sum over: "world" for all, a `torch.distributed` group, or None for this rank
            alone. May be assigned later.
        regularizers: losses on vectors and codes, added to the loss, see `quantizers.regularizers`. They move the
            vectors, not the codes.

    State (float32 under any module dtype): embedding e [K, code_dim], cluster_size N [K], embedding_sum m
    [K, code_dim]; with a mask also is_frozen [K]. Where a row of `embedding` was set in another way than by a step
    (a copy into it, a checkpoint of codes alone), the next step starts from m = N̂ e for that row, so that it does
    not undo the change.

    Shapes: x [..., dim] → quantized [..., dim], indices [...], loss [].

    Raises: ValueError for a size below 1, decay outside [0, 1], ε ≤ 0, an unknown distance or gradient, or a
    regularizer that moves codes alone; TypeError for another process_group.
    """

    always_in_repr = (*NearestCodeQuantizer.always_in_repr, "decay")

    embedding: Tensor
    cluster_size: Tensor
    embedding_sum: Tensor
    _accumulation: int = 1

    @checked
    def __init__(
        self,
        dim: Size,
        codebook_size: Size | None = None,
        *,
        codebook: Tensor | None = None,
        frozen: Frozen = False,
        decay: Share = 0.99,
        epsilon: Positive = 1e-5,
        process_group: ProcessGroup = "world",
        **options: Unpack[CommitmentOptions],
    ) -> None:
        super().__init__(dim, size_of(type(self).__name__, codebook, codebook_size), **options)
        for regularizer in self.regularizers:
            if regularizer.moves == "codes":
                raise ValueError(
                    f"regularizers contain {regularizer!r}, which moves codes alone, but these codes are moving "
                    "averages; expected regularizers that move vectors too"
                )
        self.ranks = Ranks(process_group)
        self.decay = decay
        self.epsilon = epsilon
        shape = (self.codebook_size, self.code_dim)
        self.register_buffer("embedding", torch.empty(shape))
        self.register_buffer("cluster_size", torch.empty(self.codebook_size))
        self.register_buffer("embedding_sum", torch.empty(shape))
        self._give(codebook, frozen)

    @property
    def process_group(self) -> str | None:
        """The name of the group to sum over, or None for this rank alone; accepts what the constructor accepts."""
        return self.ranks.name

    @process_group.setter
    def process_group(self, process_group: ProcessGroup) -> None:
        self.ranks = Ranks(process_group)

    def reset_parameters(self) -> None:
        """Set the codes that the constructor was given, or draw them from N(0, 1/code_dim), see `init_codes_`.

        Each one counts as a vector seen.
        """
        self._restart(self._first_codes_(self.embedding))

    @torch.no_grad()
    def set_codebook(self, codes: Tensor) -> None:
        """Replace all codes with `codes` [K, code_dim], and their averages likewise: one vector seen each.

        Raises: ValueError for another shape.
        """
        self._restart(check_codes(codes, self.codebook_size, self.code_dim))

    @torch.no_grad()
    def set_averages(self, cluster_size: Tensor, embedding_sum: Tensor) -> None:
        """Continue from the averages N [K] and m [K, code_dim] of another run. The codes change at the next step.

        Raises: ValueError for other shapes, values that are not finite, N below 0.
        """
        for name, value in (("cluster_size", cluster_size), ("embedding_sum", embedding_sum)):
            expected = tuple(getattr(self, name).shape)
            if tuple(value.shape) != expected:
                raise ValueError(f"{name} has shape {tuple(value.shape)}, expected {expected}")
            if not value.isfinite().all():
                raise ValueError(f"{name} contains values that are not finite, expected finite ones")
        if (cluster_size < 0).any():
            raise ValueError("cluster_size contains numbers below 0, expected the number of vectors per code")
        self.cluster_size.copy_(cluster_size)
        self.embedding_sum.copy_(embedding_sum)

    def _initialize(self, z: Tensor, process_group: ProcessGroup) -> None:
        self._initialize_table(z, process_group)

    @property
    def has_table(self) -> bool:
        """True."""
        return True

    @torch.no_grad()
    def move_codes(self, positions: Tensor, targets: Tensor, shares: Tensor) -> None:
        """See `LearnedCodes`. N ← (1 − share) N + share, and m = N · e.

        A replaced code thus counts as one vector seen, and the next step does not undo the move. Frozen codes do
        not move.
        """
        shares = shares.to(self.embedding)
        sizes = self.cluster_size[positions]
        self.cluster_size[positions] = torch.lerp(sizes, torch.ones_like(shares), shares)
        self.place_codes(
            positions, torch.lerp(self.embedding[positions], targets.to(self.embedding), shares[:, None])
        )

    @torch.no_grad()
    def place_codes(self, positions: Tensor, codes: Tensor) -> None:
        """See `LearnedCodes`. N stays, and m = N · e."""
        codes = self._to_value_space(codes.to(self.embedding))
        if self.frozen_codes is not None:
            codes = self.embedding[positions].where(self.is_frozen[positions, None], codes)
        write_rows(self, "embedding", positions, codes)
        self._previous().index_copy_(0, positions, codes)
        self.embedding_sum[positions] = self.cluster_size[positions, None] * codes

    @torch.no_grad()
    def share_weight(self, weak: Tensor, strong: Tensor) -> None:
        """See `LearnedCodes`. The weight is N; m changes with `place_codes`."""
        half = (self.cluster_size[weak] + self.cluster_size[strong]) / 2
        self.cluster_size[weak] = half
        self.cluster_size[strong] = half

    @torch.no_grad()
    def _restart(self, codes: Tensor) -> None:
        write(self, "embedding", self._to_value_space(codes.to(self.embedding.dtype)))
        self._previous().copy_(self.embedding)
        self.cluster_size.fill_(1)
        self.embedding_sum.copy_(self.embedding)

    def _previous(self) -> Tensor:
        """The codes that the last forward in training used, before that forward moved them."""
        return self._step_tensor("previous_embedding", self.embedding)

    def _codes(self) -> Tensor:
        # Transforms of `torch.func` do not support activation checkpointing. Frozen codes do not move, so that the
        # recomputation needs no earlier ones.
        if not (self.training and self.observes) or is_transformed():
            return self.embedding
        return choose(is_recomputing(self.embedding), self._previous(), self.embedding)

    @property
    def observes(self) -> bool:
        """Whether a forward in training moves the averages: True unless they are frozen."""
        return not self.frozen

    def _observe(self, z: Tensor, indices: Tensor) -> None:
        recomputing = is_recomputing(self.embedding)
        if recomputing is True:
            return
        z = self._to_value_space(z)
        if self._moves_in_place(z, indices):
            rule = (self.decay, self.epsilon, self.distance == "cosine")
            average_codes_(z, indices, *self._state(), self._previous(), *rule)
            return
        average = self._averages if self._accumulation == 1 else self._accumulated
        cluster_size, embedding_sum, moved = average(z, indices, recomputing)
        codes = smoothed_codes(cluster_size, embedding_sum, self.epsilon)
        if not is_transformed():
            self._previous().copy_(choose(recomputing, self._previous(), self.embedding))  # before the move
        # A batch in which no vector counts moves no average, and must not round the codes again either.
        moves = {
            "embedding": codes.where(moved, self.embedding),
            "cluster_size": cluster_size,
            "embedding_sum": embedding_sum,
        }
        for name, value in moves.items():
            write(self, name, choose(recomputing, getattr(self, name), self._of_learned(name, value)))

    def _of_learned(self, name: str, value: Tensor) -> Tensor:
        """`value` [K, ...] for the codes that learn, and the state of that name for the frozen ones."""
        if self.frozen_codes is None:
            return value
        return value.where(~self.is_frozen.view(-1, *[1] * (value.dim() - 1)), getattr(self, name))

    def _state(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.embedding, self.cluster_size, self.embedding_sum

    def _moves_in_place(self, z: Tensor, indices: Tensor) -> bool:
        """Whether kernels move the state of a step that needs no other forward and no other rank."""
        if self.frozen_codes is not None or self._accumulation > 1:
            return False
        if any(name not in self._buffers for name in ("embedding", "cluster_size", "embedding_sum")):
            return False
        return runs_in_place(z, indices, *self._state(), self.decay) and self.ranks.group() is None

    def _sums_of_codes(self) -> Tensor:
        """m [K, code_dim]: the stored sums, or N̂ e for codes that were set since."""
        return sums_of_codes(*self._state(), self.epsilon, self.distance == "cosine")

    def _averages(self, z: Tensor, indices: Tensor, _: bool | Tensor) -> Averages:
        """The new averages N [K] and m [K, code_dim], and whether they moved (0-d bool)."""
        group, sums = self.ranks.group(), self._sums_of_codes()
        if group is not None:
            counts = code_sums(z[None], indices[None], self.codebook_size)
            return ema_over_ranks(*counts, self.cluster_size, sums, self.decay, group)
        return moved_averages(z, indices, self.cluster_size, sums, self.decay)

    def _set_accumulation(self, forwards: int) -> None:
        self._accumulation = forwards
        for name in ("counts", "sums", "forwards"):
            self._step_tensors.pop(name, None)
        if forwards > 1:
            self._gathered()

    def _gathered(self) -> tuple[Tensor, Tensor, Tensor]:
        """Since the last step: counts [K] and sums [K, code_dim] of vectors, and the number of forwards []."""
        counts, sums = (
            self._step_tensor("counts", self.cluster_size),
            self._step_tensor("sums", self.embedding_sum),
        )
        return counts, sums, self._step_tensor("forwards", self.cluster_size[0])

    def _accumulated(self, z: Tensor, indices: Tensor, recomputing: bool | Tensor) -> Averages:
        """`_averages` of all vectors since the last step if this forward completes one; else the old averages."""
        own_counts, own_sums = code_sums(z[None], indices[None], self.codebook_size)
        gathered = self._gathered()
        counts, sums, forwards = gathered[0] + own_counts[0], gathered[1] + own_sums[0], gathered[2] + 1
        completes = forwards >= self._accumulation
        for buffer, value in zip(gathered, (counts, sums, forwards), strict=True):
            move(buffer, choose(recomputing, buffer, value.where(~completes, 0.0)))
        old = self._sums_of_codes()
        averages = ema_over_ranks(counts[None], sums[None], self.cluster_size, old, self.decay, self.ranks.group())
        cluster_size, embedding_sum, moved = averages
        moved = moved & completes
        return cluster_size.where(moved, self.cluster_size), embedding_sum.where(moved, old), moved
