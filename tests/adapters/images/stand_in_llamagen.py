"""A stand-in for the quantizer of LlamaGen, written after what it takes, returns and is called."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

LAST_VECTORS = 65536


class VectorQuantizer(nn.Module):
    """z [B, C, H, W] → (z_q, (vq_loss, commit_loss, entropy_loss, codebook_usage), (None, None, indices [B·H·W])).

    The losses are None in evaluation.
    """

    def __init__(
        self, n_e: int, e_dim: int, beta: float, entropy_loss_ratio: float, l2_norm: bool, show_usage: bool
    ) -> None:
        super().__init__()
        self.n_e, self.e_dim, self.beta, self.entropy_loss_ratio = n_e, e_dim, beta, entropy_loss_ratio
        self.l2_norm, self.show_usage = l2_norm, show_usage
        self.embedding = nn.Embedding(n_e, e_dim)
        nn.init.uniform_(self.embedding.weight, -1 / n_e, 1 / n_e)
        if show_usage:
            self.register_buffer("codebook_used", torch.zeros(LAST_VECTORS))

    def _codes(self) -> Tensor:
        return self._scaled(self.embedding.weight)

    def _scaled(self, vectors: Tensor) -> Tensor:
        return functional.normalize(vectors, dim=-1) if self.l2_norm else vectors

    def forward(self, z: Tensor) -> tuple[Tensor, Any, tuple[None, None, Tensor]]:
        vectors = self._scaled(z.movedim(1, -1))
        rows = vectors.reshape(-1, self.e_dim)
        distances = torch.cdist(rows, self._codes(), compute_mode="donot_use_mm_for_euclid_dist").square()
        indices = distances.argmin(1)
        codes = self._codes()[indices].view(vectors.shape)
        z_q = self._straight_through(vectors, codes).movedim(-1, 1)
        losses = self._losses(vectors, codes, distances) if self.training else (None, None, None)
        return z_q, (*losses, self._usage(indices)), (None, None, indices)

    def _straight_through(self, vectors: Tensor, codes: Tensor) -> Tensor:
        return vectors + (codes - vectors).detach()

    def _losses(self, vectors: Tensor, codes: Tensor, distances: Tensor) -> tuple[Any, ...]:
        vq_loss = (codes - vectors.detach()).square().mean()
        commit_loss = self.beta * (codes.detach() - vectors).square().mean()
        information = -(-distances / 0.01).log_softmax(-1)
        assigned = (-information).exp()
        shares = assigned.mean(0)
        entropy = (assigned * information).sum(-1).mean() + (shares * (shares + 1e-5).log()).sum()
        return vq_loss, commit_loss, self.entropy_loss_ratio * entropy

    def _usage(self, indices: Tensor) -> float:
        if not (self.training and self.show_usage):
            return 0
        self.codebook_used = torch.cat([self.codebook_used, indices])[-LAST_VECTORS:]
        return len(self.codebook_used.unique()) / self.n_e

    def get_codebook_entry(
        self, indices: Tensor, shape: tuple[int, ...] | None = None, channel_first: bool = True
    ) -> Tensor:
        codes = self._codes()[indices]
        if shape is None:
            return codes
        return codes.view(shape[0], *shape[2:], shape[1]).movedim(-1, 1) if channel_first else codes.view(shape)
