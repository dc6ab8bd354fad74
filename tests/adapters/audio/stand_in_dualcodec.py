"""A model with the quantizers of DualCodec, written from their contract in the docstrings of the adapter.

One quantizes features of speech; the other one quantizes what is left of audio. Both are DAC's, and return the
value of their first stage too.
"""

import torch
from torch import Tensor, nn

from tests.adapters.audio import stand_in_dac


class ResidualVectorQuantize(stand_in_dac.ResidualVectorQuantize):
    """The results of DAC's and the value of the first stage [B, D, T]."""

    def forward(  # type: ignore[override]
        self, z: Tensor, n_quantizers: int | None = None, possibly_no_quantizer: bool = False
    ) -> tuple[Tensor, ...]:
        assert not possibly_no_quantizer
        return *super().forward(z, n_quantizers), self.quantizers[0](z)[0]


class DAC(nn.Module):
    """Convolutions instead of its encoder and decoder."""

    def __init__(self, width: int, **options: object) -> None:
        super().__init__()
        self.encoder = nn.Conv1d(1, width, 8, stride=4, padding=2)
        self.quantizer = ResidualVectorQuantize(width, **options)  # type: ignore[arg-type]
        self.decoder = nn.ConvTranspose1d(width, 1, 8, stride=4, padding=2)


class DualCodec(nn.Module):
    """Features [B, F, T] and audio [B, 1, 4T] → audio, features, and the results of both quantizers."""

    def __init__(self, features: int, width: int, semantic_codebook_size: int, **options: object) -> None:
        super().__init__()
        self.dac = DAC(width, **options)
        self.convnext_encoder = nn.Conv1d(features, width, 1)
        self.semantic_vq = ResidualVectorQuantize(width, 1, semantic_codebook_size, 4)
        self.convnext_decoder = nn.Conv1d(width, features, 1)

    def semantic_quantize(self, features: Tensor) -> Tensor:
        _, codes, _, _, _, _ = self.semantic_vq(self.convnext_encoder(features))
        return codes[:, 0]

    def encode(self, audio: Tensor, features: Tensor, n_quantizers: int | None = None) -> tuple[Tensor, Tensor]:
        semantic, codes, _, _, _, _ = self.semantic_vq(self.convnext_encoder(features))
        residual = self.dac.encoder(audio) - semantic
        return codes, self.dac.quantizer(residual, n_quantizers, possibly_no_quantizer=False)[1]

    @torch.no_grad()
    def decode_from_codes(self, semantic_codes: Tensor, acoustic_codes: Tensor) -> Tensor:
        semantic = self.semantic_vq.from_codes(semantic_codes)[0]
        return self.dac.decoder(self.dac.quantizer.from_codes(acoustic_codes)[0] + semantic)

    def forward(self, audio: Tensor, features: Tensor) -> dict[str, Tensor]:
        semantic, _, _, *semantic_losses, _ = self.semantic_vq(self.convnext_encoder(features))
        z, _, _, *losses, first = self.dac.quantizer(self.dac.encoder(audio) - semantic)
        return {
            "x": self.dac.decoder(z + semantic),
            "features": self.convnext_decoder(semantic),
            "first": first,
            "penalty": losses[0] + semantic_losses[0],
            "codebook": losses[1] + semantic_losses[1],
        }
