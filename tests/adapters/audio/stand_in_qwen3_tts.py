"""The quantizer of Qwen3-TTS's tokenizer at 25 Hz, written from the contract: channels last, codes in a buffer."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.adapters.audio.stand_in_encodec import EuclideanCodebook


class VectorQuantization(nn.Module):
    """Projections; its codes are rows of the buffers of all stages."""

    def __init__(self, dim: int, codebook_dim: int | None) -> None:
        super().__init__()
        width = codebook_dim or dim
        self.project_in = nn.Linear(dim, width) if width != dim else nn.Identity()
        self.project_out = nn.Linear(width, dim) if width != dim else nn.Identity()
        self.commitment_weight = 1.0
        self._codebook = SimpleNamespace(decay=0.99, epsilon=1e-5)

    def encode(self, x: Tensor, book: Any) -> Tensor:
        return EuclideanCodebook.choose(book, self.project_in(x).flatten(0, 1)).view(x.shape[:2])

    def decode(self, indices: Tensor, book: Any) -> Tensor:
        return self.project_out(book.embed[indices])

    def forward(self, x: Tensor, book: Any) -> tuple[Tensor, Tensor, Tensor]:
        z, indices = self.project_in(x), self.encode(x, book)
        codes, loss = book.embed[indices], torch.zeros(1)
        if self.training:
            loss = loss + self.commitment_weight * F.mse_loss(z, codes)
            with torch.no_grad():
                EuclideanCodebook.learn(book, z.flatten(0, 1), indices.flatten())
        return self.project_out(z + (codes - z).detach()), indices, loss


class DistributedResidualVectorQuantization(nn.Module):
    def __init__(self, num_quantizers: int, dim: int, codebook_size: int, codebook_dim: int | None) -> None:
        super().__init__()
        codes = torch.randn(num_quantizers, codebook_size, codebook_dim or dim)
        self.register_buffer("inited", torch.ones(num_quantizers, 1))
        self.register_buffer("cluster_size", torch.zeros(num_quantizers, codebook_size))
        self.register_buffer("embed", codes)
        self.register_buffer("embed_avg", codes.clone())
        self.q0_ds_ratio, self.quantize_dropout = 1, False
        self.layers = nn.ModuleList(VectorQuantization(dim, codebook_dim) for _ in range(num_quantizers))

    def books(self, n_q: int | None = None) -> list[tuple[VectorQuantization, Any]]:
        names = ("cluster_size", "embed", "embed_avg")
        rows = zip(self.layers, *(getattr(self, name) for name in names), strict=True)
        return [
            (layer, SimpleNamespace(**dict(zip(names, own, strict=True)), **vars(layer._codebook)))
            for layer, *own in rows
        ][: n_q or len(self.layers)]

    def forward(self, x: Tensor, n_q: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        residual, results = x, []
        for layer, book in self.books(n_q):
            results.append(layer(residual, book))
            residual = residual - results[-1][0]
        values, indices, losses = map(torch.stack, zip(*results, strict=True))
        return values.sum(0), indices, losses

    def encode(self, x: Tensor, n_q: int | None = None) -> Tensor:
        found = []
        for layer, book in self.books(n_q):
            found.append(layer.encode(x, book))
            x = x - layer.decode(found[-1], book)
        return torch.stack(found)

    def decode(self, q_indices: Tensor) -> Tensor:
        pairs = zip(self.books(), q_indices, strict=False)
        return torch.stack([layer.decode(indices, book) for (layer, book), indices in pairs]).sum(0)


class DistributedGroupResidualVectorQuantization(nn.Module):
    """x [B, T, D] → (quantized [B, T, D], indices [n, groups, B, T], losses [n, 1]), of one group."""

    def __init__(
        self,
        *,
        num_groups: int,
        num_quantizers: int,
        dim: int,
        codebook_size: int,
        codebook_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.num_groups = num_groups
        sizes = (num_quantizers, dim, codebook_size, codebook_dim)
        self.rvqs = nn.ModuleList(DistributedResidualVectorQuantization(*sizes) for _ in range(num_groups))

    def forward(self, x: Tensor, n_q: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        quantized, indices, losses = self.rvqs[0](x, n_q)
        return quantized, indices[:, None], losses

    def encode(self, x: Tensor, n_q: int | None = None) -> Tensor:
        return self.rvqs[0].encode(x, n_q)[:, None]

    def decode(self, q_indices: Tensor) -> Tensor:
        return self.rvqs[0].decode(q_indices[:, 0])


class WhisperEncoderVQ(nn.Module):
    """Features [T, F] of one piece of speech → vectors [T / 2, D] → codes [T / 2], and features again."""

    def __init__(self, features: int, quantizer: nn.Module, width: int) -> None:
        super().__init__()
        self.audio_vq_downsample = nn.Conv1d(features, width, 2, stride=2)
        self.audio_quantizer = quantizer
        self.audio_vq_upsample = nn.ConvTranspose1d(width, features, 2, stride=2)

    def vectors(self, x: Tensor) -> Tensor:
        return self.audio_vq_downsample(x[None].mT).mT

    def features(self, vectors: Tensor) -> Tensor:
        return self.audio_vq_upsample(vectors.mT).mT[0]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        indices = self.audio_quantizer.encode(self.vectors(x))
        decoded = self.features(self.audio_quantizer.decode(indices))
        return decoded, indices.squeeze(2).squeeze(1).squeeze(0)
