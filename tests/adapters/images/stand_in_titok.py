"""A stand-in for TiTok's quantizer, written after what it computes, its calls and its parameters."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class VectorQuantizer(nn.Module):
    """z [B, C, H, W] → (z_q [B, C, H, W], a dict of three losses [] and of indices [B, H, W])."""

    def __init__(
        self,
        codebook_size: int = 1024,
        token_size: int = 256,
        commitment_cost: float = 0.25,
        use_l2_norm: bool = False,
        clustering_vq: bool = False,
    ) -> None:
        super().__init__()
        self.codebook_size, self.token_size, self.commitment_cost = codebook_size, token_size, commitment_cost
        self.embedding = nn.Embedding(codebook_size, token_size)
        self.use_l2_norm, self.clustering_vq = use_l2_norm, clustering_vq
        if clustering_vq:
            self.decay = 0.99
            self.register_buffer("embed_prob", torch.zeros(codebook_size))

    def forward(self, z: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        vectors, table = self._metric(z.float().movedim(1, -1)), self._metric(self.embedding.weight)
        indices = torch.cdist(vectors.reshape(-1, self.token_size), table).argmin(1)
        codes = table[indices].view(vectors.shape)
        commitment = self.commitment_cost * (codes.detach() - vectors).square().mean()
        codebook = (codes - vectors.detach()).square().mean()
        losses = {
            "quantizer_loss": commitment + codebook,
            "commitment_loss": commitment,
            "codebook_loss": codebook,
            "min_encoding_indices": indices.view(vectors.shape[:-1]),
        }
        return (vectors + (codes - vectors).detach()).movedim(-1, 1), losses

    def get_codebook_entry(self, indices: Tensor) -> Tensor:
        chosen = indices @ self.embedding.weight if indices.dim() == 2 else self.embedding(indices)
        return self._metric(chosen)

    def _metric(self, vectors: Tensor) -> Tensor:
        return functional.normalize(vectors, dim=-1) if self.use_l2_norm else vectors


class TiTok(nn.Module):
    """As much of the model as meets the quantizer: a sequence of latents, [B, C, 1, N]."""

    def __init__(self, width: int, codes: int, finetune_decoder: bool = False, **options: Any) -> None:
        super().__init__()
        self.finetune_decoder = finetune_decoder
        self.encoder = nn.Linear(12, width)
        self.quantize = VectorQuantizer(codes, width, **options)
        self.decoder = nn.Linear(width, 12)

    def encode(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Of x [B, N, 12]; the second stage changes the losses in place."""
        if not self.finetune_decoder:
            return self.quantize(self._latents(x))
        with torch.no_grad():
            self.quantize.eval()
            z_quantized, result_dict = self.quantize(self._latents(x))
            for name in ("quantizer_loss", "commitment_loss", "codebook_loss"):
                result_dict[name] *= 0
        return z_quantized, result_dict

    def decode(self, z_quantized: Tensor) -> Tensor:
        return self.decoder(z_quantized.squeeze(2).mT)

    def decode_tokens(self, tokens: Tensor) -> Tensor:
        """Of tokens [B, 1, N]."""
        batch, count = tokens.squeeze(1).shape
        z_quantized = self.quantize.get_codebook_entry(tokens.squeeze(1).reshape(-1))
        return self.decode(z_quantized.reshape(batch, 1, count, -1).movedim(-1, 1))

    def _latents(self, x: Tensor) -> Tensor:
        return self.encoder(x).mT[:, :, None]
