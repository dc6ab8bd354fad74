"""Vector quantization whose codes are moving averages of the vectors that chose them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from quantizers.codebook import check_codes, init_codes_, smoothed_codes
from quantizers.gradients import Gradient
from quantizers.kernels.ops.sums import ema_code_sums
from quantizers.kmeans import kmeans
from quantizers.nearest import Distance, NearestCodeQuantizer
from quantizers.parallel import ProcessGroup, Ranks, ema_code_sums_over_ranks
from quantizers.recompute import choose, is_recomputing
from quantizers.regularizers.regularizer import Regularizer


class EMAVectorQuantizer(NearestCodeQuantizer):
    """EMA VQ: the codebook gets no gradient; it follows exponential moving averages.

    van den Oord et al. 2017 (arXiv 1711.00937), appendix A.1; Razavi et al. 2019 (arXiv 1906.00446). With n_i
    vectors of sum s_i at code i in this batch: N_i ← γN_i + (1−γ)n_i, m_i ← γm_i + (1−γ)s_i, e_i = m_i / N̂_i,
    where N̂_i = (N_i + ε) / (N + Kε) · N. loss = commitment_weight · mean (z − sg[e])² over vectors and channels.

    The state moves once in each forward in training mode, with or without `no_grad`, as BatchNorm's does: with
    gradients accumulated over four forwards, four times a step. It does not move in the second forward that
    activation checkpointing runs inside the backward; that one sees the codes of the last forward before it,
    which is its own where each forward has its backward before the next. Masked vectors and vectors that are not
    finite do not count; a batch without any other leaves the state as it is, and a code whose vectors' sum leaves
    float32 takes none of them. A code that is no longer chosen decays towards the origin once N_i falls below ε.

    Data parallel: in each such forward n_i and s_i are summed over the ranks of `process_group`, so each of them
    must run it, if with an empty batch; also under DDP's `no_sync`, which is about gradients. The state is then
    bit-equal on all ranks, and that of one process on the whole batch up to the order of summation. Ranks that
    begin with different codes (FSDP leaves buffers as they are, DDP does not) have those of the first rank after a
    step in which a vector counts and no sum leaves float32. Evaluation needs no other rank.

    Args:
        dim: channels of x. codebook_size: K ≥ 1.
        code_dim: channels of a code, default `dim`. channel_dim: axis of x's channels.
        decay: γ in [0, 1). epsilon: ε > 0 of the smoothing.
        distance: "euclidean", "cosine" for codes on the unit sphere, or "angle" for a search by angle alone.
        gradient: "straight_through", "rotation", "reflection" or a function (z, codes) → [..., D].
        commitment_weight: see above.
        process_group: the ranks to sum over: "world" for all, a `torch.distributed` group, or None for each rank
            by itself. May be assigned later.
        regularizers: losses on vectors and codes that are added, see `quantizers.regularizers`; they move the
            vectors, not the codes.

    State (float32 under any module dtype): embedding e [K, code_dim], cluster_size N [K], embedding_sum m
    [K, code_dim].

    Shapes: x [..., dim] → quantized [..., dim], indices [...], loss [].

    Raises: ValueError for a size below 1, decay outside [0, 1), ε ≤ 0, unknown distance or gradient, a
    regularizer that moves codes alone; TypeError for another process_group.
    """

    embedding: Tensor
    cluster_size: Tensor
    embedding_sum: Tensor
    previous_embedding: Tensor

    def __init__(
        self,
        dim: int,
        codebook_size: int,
        *,
        code_dim: int | None = None,
        channel_dim: int = -1,
        decay: float = 0.99,
        epsilon: float = 1e-5,
        distance: Distance = "euclidean",
        gradient: str | Gradient = "straight_through",
        commitment_weight: float = 0.25,
        process_group: ProcessGroup = "world",
        regularizers: Sequence[Regularizer] = (),
    ) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay!r}, expected a number in [0, 1)")
        if not epsilon > 0:
            raise ValueError(f"epsilon is {epsilon!r}, expected a number above 0")
        super().__init__(
            dim,
            codebook_size,
            code_dim=code_dim,
            channel_dim=channel_dim,
            distance=distance,
            gradient=gradient,
            commitment_weight=commitment_weight,
            regularizers=regularizers,
        )
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
        self.register_buffer("previous_embedding", torch.empty(shape), persistent=False)
        self.reset_parameters()

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
        codes = self._metric(torch.lerp(self.embedding[places], targets.to(self.embedding), shares[:, None]))
        sizes = torch.lerp(self.cluster_size[places], torch.ones_like(shares), shares)
        self.embedding[places] = self.previous_embedding[places] = codes
        self.cluster_size[places] = sizes
        self.embedding_sum[places] = sizes[:, None] * codes

    def _restore_unsaved(self) -> None:
        self._write_unsaved("previous_embedding", self.embedding)

    @torch.no_grad()
    def _restart(self, codes: Tensor) -> None:
        self.embedding.copy_(self._metric(codes.to(self.embedding.dtype)))
        self.previous_embedding.copy_(self.embedding)
        self.cluster_size.fill_(1)
        self.embedding_sum.copy_(self.embedding)

    def _codes(self) -> Tensor:
        if not self.training:
            return self.embedding
        return choose(is_recomputing(self.embedding), self.previous_embedding, self.embedding)

    @property
    def observes(self) -> bool:
        """True: the averages move in each forward in training."""
        return True

    def _observe(self, z: Tensor, indices: Tensor) -> None:
        recomputing = is_recomputing(self.embedding)
        if recomputing is True:
            return
        cluster_size, embedding_sum, moved = self._averages(self._metric(z), indices)
        codes = smoothed_codes(cluster_size, embedding_sum, self.epsilon)
        # A batch without a vector that counts moves no average, and must not round the codes anew either.
        moves = (
            (self.previous_embedding, self.embedding),  # before the next one moves it
            (self.embedding, codes.where(moved, self.embedding)),
            (self.cluster_size, cluster_size),
            (self.embedding_sum, embedding_sum),
        )
        for buffer, value in moves:
            buffer.copy_(choose(recomputing, buffer, value))

    def _averages(self, z: Tensor, indices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The new averages N [K] and m [K, code_dim], and whether they moved, 0-d bool."""
        group = self.ranks.group()
        if group is not None:
            return ema_code_sums_over_ranks(z, indices, self.cluster_size, self.embedding_sum, self.decay, group)
        averages = ema_code_sums(
            z[None], indices[None], self.cluster_size[None], self.embedding_sum[None], self.decay
        )
        cluster_size, embedding_sum = (average[0] for average in averages)
        moved = (cluster_size != self.cluster_size).any() | (embedding_sum != self.embedding_sum).any()
        return cluster_size, embedding_sum, moved
