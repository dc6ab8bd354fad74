"""Small quantizers with the interface of moshi's package, written from the contract.

They have the package's names of modules and buffers, its losses and its averages, and leave out k-means, dead
codes, ranks and metrics.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.adapters.audio import stand_in_audiocraft


@dataclass
class QuantizedResult:
    x: Tensor
    codes: Tensor
    bandwidth: Tensor
    penalty: Tensor | None = None
    metrics: dict = field(default_factory=dict)


class EuclideanCodebook(nn.Module):
    def __init__(self, dim: int, codebook_size: int, decay: float, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.decay, self.epsilon = decay, epsilon
        self.register_buffer("cluster_usage", torch.ones(codebook_size))
        self.register_buffer("embedding_sum", torch.zeros(codebook_size, dim))

    @property
    def embedding(self) -> Tensor:
        return self.embedding_sum / self.cluster_usage.clamp(min=self.epsilon)[:, None]

    def choose(self, rows: Tensor) -> Tensor:
        return torch.cdist(rows[None], self.embedding[None])[0].argmin(-1)

    def learn(self, rows: Tensor, indices: Tensor) -> None:
        chosen = F.one_hot(indices, len(self.cluster_usage)).to(rows)
        self.cluster_usage.mul_(self.decay).add_(chosen.sum(0), alpha=1 - self.decay)
        self.embedding_sum.mul_(self.decay).add_(chosen.T @ rows, alpha=1 - self.decay)


class VectorQuantization(nn.Module):
    def __init__(self, dim: int, codebook_size: int, decay: float) -> None:
        super().__init__()
        self._codebook = EuclideanCodebook(dim, codebook_size, decay)

    def encode(self, x: Tensor) -> Tensor:
        rows = x.transpose(1, 2)
        return self._codebook.choose(rows.flatten(0, 1)).view(rows.shape[:2])

    def decode(self, indices: Tensor) -> Tensor:
        return self._codebook.embedding[indices].transpose(1, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        indices = self.encode(x)
        codes, loss = self.decode(indices), torch.zeros(())
        if self.training:
            loss = F.mse_loss(x, codes)
            with torch.no_grad():
                self._codebook.learn(x.transpose(1, 2).flatten(0, 1), indices.flatten())
        return codes, indices, loss


class ResidualVectorQuantization(stand_in_audiocraft.ResidualVectorQuantization):
    def __init__(self, *, num_quantizers: int, **options: Any) -> None:
        nn.Module.__init__(self)
        self.layers = nn.ModuleList(VectorQuantization(**options) for _ in range(num_quantizers))


class ResidualVectorQuantizer(nn.Module):
    def __init__(
        self,
        dimension: int = 128,
        input_dimension: int | None = None,
        output_dimension: int | None = None,
        n_q: int = 8,
        q_dropout: bool = False,
        bins: int = 1024,
        decay: float = 0.99,
        force_projection: bool = False,
    ) -> None:
        super().__init__()
        self.max_n_q = self.n_q = n_q
        self.q_dropout, self.dimension, self.bins, self.decay = q_dropout, dimension, bins, decay
        self.input_dimension = input_dimension or dimension
        self.output_dimension = output_dimension or dimension
        self.input_proj, self.output_proj = (
            nn.Conv1d(before, after, 1, bias=False) if before != after or force_projection else nn.Identity()
            for before, after in ((self.input_dimension, dimension), (dimension, self.output_dimension))
        )
        self.vq = ResidualVectorQuantization(num_quantizers=n_q, dim=dimension, codebook_size=bins, decay=decay)
        self._ema_frozen = False

    def forward(self, x: Tensor, frame_rate: float) -> QuantizedResult:
        drops = self.training and self.q_dropout
        count = int(torch.randint(1, self.n_q + 1, ())) if drops else self.n_q
        x = self.input_proj(x)
        quantized, codes, losses = self.vq(x, n_q=count)
        bandwidth = torch.tensor(count * math.log2(self.bins) * frame_rate / 1000).to(x)
        return QuantizedResult(self.output_proj(quantized), codes.transpose(0, 1), bandwidth, losses.mean())

    def encode(self, x: Tensor) -> Tensor:
        if x.shape[-1] == 0:
            return torch.zeros(len(x), self.n_q, 0, dtype=torch.int64)
        return self.vq.encode(self.input_proj(x), n_q=self.n_q).transpose(0, 1)

    def decode(self, codes: Tensor) -> Tensor:
        return self.output_proj(self.vq.decode(codes.transpose(0, 1)))

    @property
    def total_codebooks(self) -> int:
        return self.max_n_q

    @property
    def num_codebooks(self) -> int:
        return self.n_q

    def set_num_codebooks(self, n: int) -> None:
        assert 0 <= n <= self.max_n_q
        self.n_q = n

    @property
    def cardinality(self) -> int:
        return self.bins

    @property
    def semantic_quantizer(self) -> nn.Module:
        return self

    @property
    def acoustic_quantizer(self) -> nn.Module:
        return self

    @property
    def ema_frozen(self) -> bool:
        return self._ema_frozen

    def ema_frozen_(self, ema_frozen: bool) -> None:
        self._ema_frozen = ema_frozen


class SplitResidualVectorQuantizer(nn.Module):
    def __init__(self, *, n_q: int = 8, n_q_semantic: int = 1, q_dropout: bool = False, **options: Any) -> None:
        super().__init__()
        self.n_q_semantic = n_q_semantic
        self.rvq_first = ResidualVectorQuantizer(n_q=n_q_semantic, force_projection=True, **options)
        self.rvq_rest = ResidualVectorQuantizer(
            n_q=n_q - n_q_semantic, q_dropout=q_dropout, force_projection=True, **options
        )

    def forward(self, x: Tensor, frame_rate: float) -> QuantizedResult:
        first = self.rvq_first(x, frame_rate)
        if self.n_q == self.n_q_semantic:
            return first
        rest = self.rvq_rest(x, frame_rate)
        codes = torch.cat([first.codes, rest.codes], dim=1)
        shares = first.codes.shape[1] / codes.shape[1], rest.codes.shape[1] / codes.shape[1]
        return QuantizedResult(
            first.x + rest.x,
            codes,
            first.bandwidth + rest.bandwidth,
            penalty=first.penalty * shares[0] + rest.penalty * shares[1],
            metrics={**first.metrics, **rest.metrics},
        )

    def encode(self, x: Tensor) -> Tensor:
        codes = self.rvq_first.encode(x)
        return torch.cat([codes, self.rvq_rest.encode(x)], dim=1) if self.n_q > self.n_q_semantic else codes

    def decode(self, codes: Tensor) -> Tensor:
        quantized = self.rvq_first.decode(codes[:, : self.n_q_semantic])
        if codes.shape[1] > self.n_q_semantic:
            quantized += self.rvq_rest.decode(codes[:, self.n_q_semantic :])
        return quantized

    @property
    def total_codebooks(self) -> int:
        return self.rvq_first.max_n_q + self.rvq_rest.max_n_q

    @property
    def num_codebooks(self) -> int:
        return self.rvq_first.num_codebooks + self.rvq_rest.num_codebooks

    @property
    def n_q(self) -> int:
        return self.rvq_first.n_q + self.rvq_rest.n_q

    @property
    def dimension(self) -> int:
        return self.rvq_first.dimension

    @property
    def cardinality(self) -> int:
        assert self.rvq_rest.cardinality == self.rvq_first.cardinality
        return self.rvq_first.cardinality

    def set_num_codebooks(self, n: int) -> None:
        assert self.n_q_semantic <= n <= self.total_codebooks
        self.rvq_rest.set_num_codebooks(n - self.n_q_semantic)

    def ema_frozen_(self, ema_frozen: bool) -> None:
        self._ema_frozen = ema_frozen


class MimiModel(stand_in_audiocraft.EncodecModel):
    """Audio [B, 1, samples] → frames of 8 samples, quantized, and back."""

    freeze_quantizer = False

    @property
    def cardinality(self) -> int:
        return self.quantizer.cardinality
