"""A small quantizer with the interface of audiocraft, written from the contract.

Its stages are those of EnCodec's stand-in, except that the residual of a stage is a constant for the ones before.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tests.adapters.audio import stand_in_encodec


@dataclass
class QuantizedResult:
    x: Tensor
    codes: Tensor
    bandwidth: Tensor
    penalty: Tensor | None = None
    metrics: dict = field(default_factory=dict)


class ResidualVectorQuantization(stand_in_encodec.ResidualVectorQuantization):
    def forward(self, x: Tensor, n_q: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        total, residual, found = torch.zeros(()), x, []
        for layer in self.layers[: n_q or len(self.layers)]:
            quantized, indices, loss = layer(residual)
            total, residual = total + quantized.detach(), residual - quantized.detach()
            found.append((indices, loss))
        indices, losses = zip(*found, strict=True)
        total = x + (total - x).detach() if self.training else total
        return total, torch.stack(indices), torch.stack(losses)


class ResidualVectorQuantizer(nn.Module):
    def __init__(
        self, dimension: int = 256, n_q: int = 8, q_dropout: bool = False, bins: int = 1024, decay: float = 0.99
    ) -> None:
        super().__init__()
        self.dimension, self.n_q, self.max_n_q, self.bins, self.decay = dimension, n_q, n_q, bins, decay
        self.q_dropout = q_dropout
        self.vq = ResidualVectorQuantization(num_quantizers=n_q, dim=dimension, codebook_size=bins, decay=decay)

    def forward(self, x: Tensor, frame_rate: float) -> QuantizedResult:
        drops = self.training and self.q_dropout
        count = int(torch.randint(1, self.n_q + 1, ())) if drops else self.n_q
        quantized, codes, losses = self.vq(x, n_q=count)
        bandwidth = torch.tensor(count * math.log2(self.bins) * frame_rate / 1000).to(x)
        return QuantizedResult(quantized, codes.transpose(0, 1), bandwidth, penalty=losses.mean())

    def encode(self, x: Tensor) -> Tensor:
        return self.vq.encode(x, n_q=self.n_q).transpose(0, 1)

    def decode(self, codes: Tensor) -> Tensor:
        return self.vq.decode(codes.transpose(0, 1))

    @property
    def total_codebooks(self) -> int:
        return self.max_n_q

    @property
    def num_codebooks(self) -> int:
        return self.n_q

    def set_num_codebooks(self, n: int) -> None:
        assert 0 < n <= self.max_n_q
        self.n_q = n


class EncodecModel(nn.Module):
    """Audio [B, 1, samples] → frames of 8 samples, quantized, and back."""

    def __init__(self, quantizer: nn.Module, channels: int, frame_rate: float = 100) -> None:
        super().__init__()
        self.frame_rate = frame_rate
        self.encoder = nn.Conv1d(1, channels, 8, stride=8)
        self.quantizer = quantizer
        self.decoder = nn.ConvTranspose1d(channels, 1, 8, stride=8)

    def forward(self, audio: Tensor) -> QuantizedResult:
        result = self.quantizer(self.encoder(audio), self.frame_rate)
        result.x = self.decoder(result.x)
        return result

    def encode(self, audio: Tensor) -> Tensor:
        return self.quantizer.encode(self.encoder(audio))

    def decode(self, codes: Tensor) -> Tensor:
        return self.decoder(self.quantizer.decode(codes))

    @property
    def num_codebooks(self) -> int:
        return self.quantizer.num_codebooks

    @property
    def total_codebooks(self) -> int:
        return self.quantizer.total_codebooks

    @property
    def cardinality(self) -> int:
        return self.quantizer.bins

    def set_num_codebooks(self, n: int) -> None:
        self.quantizer.set_num_codebooks(n)
