"""A small quantizer with the interface of EnCodec's own package, written from the contract.

It has the package's names of modules and buffers, its losses and its averages, and leaves out k-means, dead
codes and ranks.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass
class QuantizedResult:
    quantized: Tensor
    codes: Tensor
    bandwidth: Tensor
    penalty: Tensor | None = None
    metrics: dict = field(default_factory=dict)


class EuclideanCodebook(nn.Module):
    def __init__(self, dim: int, codebook_size: int, decay: float, epsilon: float) -> None:
        super().__init__()
        self.decay, self.epsilon = decay, epsilon
        codes = torch.randn(codebook_size, dim)
        self.register_buffer("inited", torch.ones(1))
        self.register_buffer("cluster_size", torch.zeros(codebook_size))
        self.register_buffer("embed", codes)
        self.register_buffer("embed_avg", codes.clone())

    def choose(self, rows: Tensor) -> Tensor:
        distances = rows.square().sum(-1, keepdim=True) - 2 * rows @ self.embed.T + self.embed.square().sum(-1)
        return distances.argmin(-1)

    def learn(self, rows: Tensor, indices: Tensor) -> None:
        chosen = F.one_hot(indices, len(self.embed)).to(rows)
        self.cluster_size.mul_(self.decay).add_(chosen.sum(0), alpha=1 - self.decay)
        self.embed_avg.mul_(self.decay).add_(chosen.T @ rows, alpha=1 - self.decay)
        total = self.cluster_size.sum()
        share = (self.cluster_size + self.epsilon) / (total + len(self.embed) * self.epsilon)
        self.embed.copy_(self.embed_avg / (share * total)[:, None])


class VectorQuantization(nn.Module):
    def __init__(
        self,
        dim: int,
        codebook_size: int,
        codebook_dim: int | None = None,
        decay: float = 0.99,
        epsilon: float = 1e-5,
        commitment_weight: float = 1.0,
    ) -> None:
        super().__init__()
        width = codebook_dim or dim
        self.project_in = nn.Linear(dim, width) if width != dim else nn.Identity()
        self.project_out = nn.Linear(width, dim) if width != dim else nn.Identity()
        self.commitment_weight = commitment_weight
        self._codebook = EuclideanCodebook(width, codebook_size, decay, epsilon)

    def encode(self, x: Tensor) -> Tensor:
        rows = self.project_in(x.transpose(1, 2))
        return self._codebook.choose(rows.flatten(0, 1)).view(rows.shape[:2])

    def decode(self, indices: Tensor) -> Tensor:
        return self.project_out(self._codebook.embed[indices]).transpose(1, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z, indices = self.project_in(x.transpose(1, 2)), self.encode(x)
        codes, loss = self._codebook.embed[indices], torch.zeros(1)
        if self.training:
            loss = loss + self.commitment_weight * F.mse_loss(z, codes)
            with torch.no_grad():
                self._codebook.learn(z.flatten(0, 1), indices.flatten())
        return self.project_out(z + (codes - z).detach()).transpose(1, 2), indices, loss


class ResidualVectorQuantization(nn.Module):
    def __init__(self, *, num_quantizers: int, **options: object) -> None:
        super().__init__()
        self.layers = nn.ModuleList(VectorQuantization(**options) for _ in range(num_quantizers))

    def forward(self, x: Tensor, n_q: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        total, residual, found = torch.zeros(()), x, []
        for layer in self.layers[: n_q or len(self.layers)]:
            quantized, indices, loss = layer(residual)
            total, residual = total + quantized, residual - quantized
            found.append((indices, loss))
        indices, losses = zip(*found, strict=True)
        return total, torch.stack(indices), torch.stack(losses)

    def encode(self, x: Tensor, n_q: int | None = None) -> Tensor:
        found = []
        for layer in self.layers[: n_q or len(self.layers)]:
            found.append(layer.encode(x))
            x = x - layer.decode(found[-1])
        return torch.stack(found)

    def decode(self, q_indices: Tensor) -> Tensor:
        return sum(
            (layer.decode(indices) for layer, indices in zip(self.layers, q_indices, strict=False)),
            torch.zeros(()),
        )


class ResidualVectorQuantizer(nn.Module):
    def __init__(self, dimension: int = 256, n_q: int = 8, bins: int = 1024, decay: float = 0.99) -> None:
        super().__init__()
        self.dimension, self.n_q, self.bins, self.decay = dimension, n_q, bins, decay
        self.vq = ResidualVectorQuantization(num_quantizers=n_q, dim=dimension, codebook_size=bins, decay=decay)

    def get_bandwidth_per_quantizer(self, sample_rate: float) -> float:
        return math.log2(self.bins) * sample_rate / 1000

    def get_num_quantizers_for_bandwidth(self, sample_rate: float, bandwidth: float | None = None) -> int:
        if not bandwidth or bandwidth < 0:
            return self.n_q
        return max(1, math.floor(bandwidth / self.get_bandwidth_per_quantizer(sample_rate)))

    def forward(self, x: Tensor, sample_rate: float, bandwidth: float | None = None) -> QuantizedResult:
        count = self.get_num_quantizers_for_bandwidth(sample_rate, bandwidth)
        quantized, codes, losses = self.vq(x, n_q=count)
        used = torch.tensor(count * self.get_bandwidth_per_quantizer(sample_rate)).to(x)
        return QuantizedResult(quantized, codes, used, losses.mean())

    def encode(self, x: Tensor, sample_rate: float, bandwidth: float | None = None) -> Tensor:
        return self.vq.encode(x, n_q=self.get_num_quantizers_for_bandwidth(sample_rate, bandwidth))

    def decode(self, codes: Tensor) -> Tensor:
        return self.vq.decode(codes)


class EncodecModel(nn.Module):
    """Audio [B, 1, samples] → frames of 8 samples, codes at a bandwidth, and back."""

    def __init__(self, quantizer: ResidualVectorQuantizer, frame_rate: float = 100) -> None:
        super().__init__()
        self.frame_rate, self.bandwidth = frame_rate, None
        self.encoder = nn.Conv1d(1, quantizer.dimension, 8, stride=8)
        self.quantizer = quantizer
        self.decoder = nn.ConvTranspose1d(quantizer.dimension, 1, 8, stride=8)

    def encode(self, audio: Tensor) -> Tensor:
        return self.quantizer.encode(self.encoder(audio), self.frame_rate, self.bandwidth).transpose(0, 1)

    def decode(self, codes: Tensor) -> Tensor:
        return self.decoder(self.quantizer.decode(codes.transpose(0, 1)))

    def forward(self, audio: Tensor) -> Tensor:
        return self.decode(self.encode(audio))
