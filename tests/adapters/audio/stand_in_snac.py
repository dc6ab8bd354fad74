"""A model with the quantizer of SNAC, written from its contract in the docstrings of the adapter.

Stages are those of DAC, of means over `stride` vectors, and their values are repeated as often.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from tests.adapters.audio import stand_in_dac


class VectorQuantize(stand_in_dac.VectorQuantize):
    """z [B, D, T] → (z_q [B, D, T], indices [B, T / stride])."""

    def __init__(self, input_dim: int, codebook_size: int, codebook_dim: int, stride: int = 1) -> None:
        super().__init__(input_dim, codebook_size, codebook_dim, parametrizations.weight_norm)
        self.stride = stride

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        z_e = self.in_proj(F.avg_pool1d(z, self.stride))
        z_q, indices = self.decode_latents(z_e)
        value = self.out_proj(z_e + (z_q - z_e).detach())
        return value.repeat_interleave(self.stride, -1), indices


class ResidualVectorQuantize(nn.Module):
    """z [B, D, T] → (z_q [B, D, T], codes: for each stage [B, T / stride])."""

    def __init__(self, input_dim: int, codebook_size: int, codebook_dim: int, vq_strides: tuple[int, ...]) -> None:
        super().__init__()
        self.n_codebooks, self.codebook_dim, self.codebook_size = len(vq_strides), codebook_dim, codebook_size
        self.quantizers = nn.ModuleList(
            VectorQuantize(input_dim, codebook_size, codebook_dim, stride) for stride in vq_strides
        )

    def forward(self, z: Tensor) -> tuple[Tensor, list[Tensor]]:
        z_q, codes = torch.zeros_like(z), []
        for stage in self.quantizers:
            value, indices = stage(z - z_q)
            z_q = z_q + value
            codes.append(indices)
        return z_q, codes

    def from_codes(self, codes: list[Tensor]) -> Tensor:
        values = [
            stage.out_proj(stage.decode_code(own)).repeat_interleave(stage.stride, -1)
            for stage, own in zip(self.quantizers, codes, strict=True)
        ]
        return torch.stack(values).sum(0)


class SNAC(nn.Module):
    """As much of the codec as meets the quantizer: convolutions instead of its encoder and decoder."""

    def __init__(self, latent_dim: int, vq_strides: tuple[int, ...] = (4, 2, 1), **sizes: int) -> None:
        super().__init__()
        self.vq_strides, self.hop_length = vq_strides, 4
        self.encoder = nn.Conv1d(1, latent_dim, 8, stride=4, padding=2)
        self.quantizer = ResidualVectorQuantize(latent_dim, vq_strides=vq_strides, **sizes)
        self.decoder = nn.ConvTranspose1d(latent_dim, 1, 8, stride=4, padding=2)

    def preprocess(self, audio: Tensor) -> Tensor:
        multiple = self.hop_length * self.vq_strides[0]
        return F.pad(audio, (0, math.ceil(audio.shape[-1] / multiple) * multiple - audio.shape[-1]))

    def forward(self, audio: Tensor) -> tuple[Tensor, list[Tensor]]:
        z_q, codes = self.quantizer(self.encoder(self.preprocess(audio)))
        return self.decoder(z_q)[..., : audio.shape[-1]], codes

    def encode(self, audio: Tensor) -> list[Tensor]:
        return self.quantizer(self.encoder(self.preprocess(audio)))[1]

    def decode(self, codes: list[Tensor]) -> Tensor:
        return self.decoder(self.quantizer.from_codes(codes))
