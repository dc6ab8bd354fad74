"""Stand-ins for two quantizers of ImageFolder, written after what they compute, their calls and parameters."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.adapters.images import stand_in_var

Encoded = tuple[Tensor, list[float] | None, Tensor, Tensor, float]


class VectorQuantizer2(stand_in_var.VectorQuantizer2):
    """VAR's, with a forward of its own: → (f_hat, usages or None, codebook loss [], commitment [], 0).

    The published forward needs an initialized process group; this one takes it as a group of one process.
    """

    def __init__(
        self,
        vocab_size: int,
        Cvae: int,
        using_znorm: bool = True,
        *,
        num_latent_tokens: int = 256,
        codebook_drop: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(vocab_size, Cvae, using_znorm, **options)
        self.num_latent_tokens, self.codebook_drop = num_latent_tokens, codebook_drop

    def forward(self, f_BChw: Tensor, ret_usages: bool = False, dropout: Tensor | None = None) -> Encoded:
        f, count = f_BChw.float(), len(self.v_patch_nums)
        depths = torch.full(f.shape[:1], count + 1)
        if self.training and dropout is not None:
            dropping = int(len(f) * self.codebook_drop)
            depths[:dropping] = dropout[:dropping]
        f_hat, before, codebook, commitment = torch.zeros_like(f), torch.zeros_like(f), 0.0, 0.0
        for position, _, total in self._scales(f.detach(), self.v_patch_nums):
            used = (position < depths)[:, None, None, None].float()
            f_hat, before = f_hat + (total - before) * used, total
            share = used.mean()
            codebook = codebook + ((f_hat - f.detach()).square() * used).mean() / share
            commitment = commitment + self.beta * ((f_hat.detach() - f).square() * used).mean() / share
        least = 0.08 * f[:, 0].numel() / self.vocab_size
        usages = [100 * (hits >= least).float().mean().item() for hits in self.ema_vocab_hit_SV]
        return f + (f_hat - f).detach(), usages if ret_usages else None, codebook / count, commitment, 0


class VectorQuantizer(nn.Module):
    """For one scale: z [B, C, H, W] → (z_q, [usage], codebook loss [], commitment [], 0.0).

    The published forward fails in evaluation, and needs an initialized process group in training.
    """

    def __init__(
        self, vocab_size: int = 8192, z_channels: int = 32, beta: float = 0.25, codebook_norm: bool = True
    ) -> None:
        super().__init__()
        self.vocab_size, self.z_channels = vocab_size, z_channels
        self.beta, self.codebook_norm = beta, codebook_norm
        self.embedding = nn.Embedding(vocab_size, z_channels)
        self.register_buffer("ema_vocab_hit_SV", torch.zeros(vocab_size))

    def no_weight_decay(self) -> list[str]:
        return ["embedding.weight"]

    def forward(self, z: Tensor, ret_usages: bool = True, dropout: None = None) -> Encoded:
        vectors, indices, codes = self._search(z)
        commitment = self.beta * (codes.detach() - vectors).square().mean()
        codebook = (codes - vectors.detach()).square().mean()
        usage = 100 * len(indices.unique()) / self.vocab_size
        straight_through = (vectors + (codes - vectors).detach()).movedim(-1, 1)
        return straight_through, [usage], codebook, commitment, 0.0

    def f_to_idxBl_or_fhat(
        self, z: Tensor, to_fhat: bool, v_patch_nums: Sequence[int] | None = None
    ) -> list[Tensor]:
        _, indices, codes = self._search(z)
        return [codes.movedim(-1, 1) if to_fhat else indices]

    def _search(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors [B, H, W, C], indices [B·H·W] and codes [B, H, W, C]."""
        vectors, table = z.movedim(1, -1), self.embedding.weight
        if self.codebook_norm:
            vectors, table = functional.normalize(vectors, dim=-1), functional.normalize(table, dim=-1)
        indices = torch.cdist(vectors.reshape(-1, self.z_channels), table).argmin(1)
        return vectors, indices, table[indices].view(vectors.shape)
