"""WavTokenizer and its quantizer, written from the contract: EnCodec's with one codebook, `infer`, and bit/s."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.adapters.audio.stand_in_encodec import QuantizedResult, VectorQuantization


class LanguageVectorQuantization(nn.Module):
    """Each layer quantizes x itself, and the last one's value is returned."""

    def __init__(self, *, num_quantizers: int, **options: object) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            VectorQuantization(**options)  # type: ignore[arg-type]
            for _ in range(num_quantizers)
        )

    def forward(self, x: Tensor, n_q: int) -> tuple[Tensor, Tensor, Tensor]:
        values, *rest = zip(*(layer(x) for layer in self.layers[:n_q]), strict=True)
        return values[-1], *map(torch.stack, rest)


class ResidualVectorQuantizer(nn.Module):
    def __init__(self, dimension: int = 256, n_q: int = 1, bins: int = 1024, decay: float = 0.99) -> None:
        super().__init__()
        self.dimension, self.n_q, self.bins = dimension, n_q, bins
        self.vq = LanguageVectorQuantization(num_quantizers=n_q, dim=dimension, codebook_size=bins, decay=decay)
        for layer in self.vq.layers:
            layer.codebook = layer._codebook.embed

    def get_bandwidth_per_quantizer(self, frame_rate: float) -> float:
        return math.log2(self.bins) * frame_rate

    def get_num_quantizers_for_bandwidth(self, frame_rate: float, bandwidth: float | None = None) -> int:
        if not bandwidth or bandwidth < 0:
            return self.n_q
        return max(1, math.floor(bandwidth * 1000 / self.get_bandwidth_per_quantizer(frame_rate)))

    def forward(self, x: Tensor, frame_rate: float, bandwidth: float | None = None) -> QuantizedResult:
        return self._result(x, frame_rate, self.get_num_quantizers_for_bandwidth(frame_rate, bandwidth))

    def infer(self, x: Tensor, frame_rate: float, bandwidth: float | None = None) -> QuantizedResult:
        return self._result(x, frame_rate, 1)

    def _result(self, x: Tensor, frame_rate: float, count: int) -> QuantizedResult:
        quantized, codes, losses = self.vq(x, count)
        used = torch.tensor(count * self.get_bandwidth_per_quantizer(frame_rate)).to(x)
        return QuantizedResult(quantized, codes, used, losses.mean())

    def encode(self, x: Tensor, frame_rate: float, bandwidth: float | None = None) -> Tensor:
        return self.vq.layers[0].encode(x)[None]

    def decode(self, codes: Tensor) -> Tensor:
        return self.vq.layers[0].decode(codes[0])


class WavTokenizer(nn.Module):
    """Audio [B, 1, samples] → features of frames of 8 samples → audio."""

    frame_rate = 25

    def __init__(self, quantizer: ResidualVectorQuantizer) -> None:
        super().__init__()
        self.encoder = nn.Conv1d(1, quantizer.dimension, 8, stride=8)
        self.quantizer = quantizer
        self.head = nn.ConvTranspose1d(quantizer.dimension, 1, 8, stride=8)

    def forward(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        result = self.quantizer(self.encoder(audio), self.frame_rate, bandwidth=6.6)
        return self.head(result.quantized), result.penalty

    def encode_infer(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        result = self.quantizer.infer(self.encoder(audio), self.frame_rate, bandwidth=6.6)
        return result.quantized, result.codes

    def codes_to_features(self, codes: Tensor) -> Tensor:
        starts = torch.arange(len(codes)) * self.quantizer.bins
        table = torch.cat([layer.codebook for layer in self.quantizer.vq.layers])
        return F.embedding(codes + starts[:, None, None], table).sum(0).mT
