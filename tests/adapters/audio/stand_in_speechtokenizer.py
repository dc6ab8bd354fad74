"""SpeechTokenizer and its quantizer, written from the contract: EnCodec's stages, whose values are returned."""

import torch
from torch import Tensor, nn

from tests.adapters.audio import stand_in_encodec


class ResidualVectorQuantization(stand_in_encodec.ResidualVectorQuantization):
    def forward(  # type: ignore[override]
        self, x: Tensor, n_q: int | None = None, layers: list[int] | None = None
    ) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        residual, values, found = x, [], []
        for layer in self.layers[: n_q or len(self.layers)]:
            value, *rest = layer(residual)
            residual = residual - value
            values.append(value)
            found.append(rest)
        indices, losses = map(torch.stack, zip(*found, strict=True))
        wanted = [value for place, value in enumerate(values) if layers and place in layers]
        return torch.stack(values).sum(0), indices, losses, wanted


class ResidualVectorQuantizer(nn.Module):
    def __init__(self, dimension: int = 256, n_q: int = 8, bins: int = 1024) -> None:
        super().__init__()
        self.dimension, self.n_q, self.bins = dimension, n_q, bins
        self.vq = ResidualVectorQuantization(num_quantizers=n_q, dim=dimension, codebook_size=bins)

    def forward(
        self, x: Tensor, n_q: int | None = None, layers: list[int] | None = None
    ) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        n_q = n_q or self.n_q
        if layers and max(layers) >= n_q:
            raise ValueError("a layer that is not used")
        quantized, codes, losses, values = self.vq(x, n_q=n_q, layers=layers)
        return quantized, codes, losses.mean(), values

    def encode(self, x: Tensor, n_q: int | None = None, st: int | None = None) -> Tensor:
        assert not st
        return self.vq.encode(x, n_q or self.n_q)

    def decode(self, codes: Tensor, st: int = 0) -> Tensor:
        layers = self.vq.layers[st : st + len(codes)]
        return torch.stack([layer.decode(own) for layer, own in zip(layers, codes, strict=True)]).sum(0)


class SpeechTokenizer(nn.Module):
    """Audio [B, 1, samples] → frames of 8 samples; a map of the first stage's value should predict a teacher's."""

    def __init__(self, quantizer: nn.Module, width: int, teacher: int, n_q: int) -> None:
        super().__init__()
        self.n_q = n_q
        self.encoder = nn.Conv1d(1, width, 8, stride=8)
        self.quantizer = quantizer
        self.transform = nn.Linear(width, teacher)
        self.decoder = nn.ConvTranspose1d(width, 1, 8, stride=8)

    def forward(self, x: Tensor, n_q: int | None = None, layers: tuple[int, ...] = (0,)) -> tuple[Tensor, ...]:
        quantized, _, loss, values = self.quantizer(self.encoder(x), n_q=n_q or self.n_q, layers=[*layers])
        return self.decoder(quantized), loss, self.transform(values[0].mT)

    def forward_feature(self, x: Tensor, layers: list[int] | None = None) -> list[Tensor]:
        return self.quantizer(self.encoder(x), layers=layers or list(range(self.n_q)))[3]

    def encode(self, x: Tensor, n_q: int | None = None, st: int | None = None) -> Tensor:
        return self.quantizer.encode(self.encoder(x), n_q=n_q or self.n_q, st=st or 0)

    def decode(self, codes: Tensor, st: int = 0) -> Tensor:
        return self.decoder(self.quantizer.decode(codes, st=st))
