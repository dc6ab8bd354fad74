"""One small convolutional autoencoder with the quantizer in its middle.

    image [B, 3, 32, 32] -> encoder -> [B, dim, 8, 8] -> quantizer -> [B, dim, 8, 8] -> decoder -> [B, 3, 32, 32]

Images lie in [−1, 1]. It has no layer that fixes the size: any sides that are multiples of 4 work.
"""

import torch
from torch import nn

from benchmarks import variants
from benchmarks.models import convolutions
from quantizers import QuantizerOutput

DOWNSAMPLING = 4  # pixels a side for each latent vector
WIDTH = 32  # channels at half resolution; twice as many at a quarter


class Autoencoder(nn.Module):
    """Encoder, quantizer, decoder; nothing in it knows which quantizer it holds."""

    def __init__(self, encoder: nn.Module, quantizer: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.quantizer = quantizer
        self.decoder = decoder

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, QuantizerOutput]:
        """The reconstruction, in the images' shape, and what the quantizer returned."""
        out = self.quantizer(self.encoder(images))
        return self.decoder(out.quantized), out


def make_encoder(dim: int) -> nn.Sequential:
    """[B, 3, H, W] to [B, dim, H/4, W/4]"""
    return convolutions.make_encoder(3, dim, width=WIDTH, downsampling=DOWNSAMPLING)


def make_decoder(dim: int) -> nn.Sequential:
    """[B, dim, H/4, W/4] to [B, 3, H, W]"""
    return convolutions.make_decoder(dim, 3, width=WIDTH, downsampling=DOWNSAMPLING)


def build(variant: str, *, dim: int, codebook_size: int, seed: int) -> Autoencoder:
    """The autoencoder around that variant of a quantizer; the same seed gives the same encoder and decoder.

    The quantizer is made last, so that what it draws for itself cannot change the other weights.
    """
    torch.manual_seed(seed)
    encoder, decoder = make_encoder(dim), make_decoder(dim)
    quantizer = variants.create(variant, dim=dim, codebook_size=codebook_size, channel_dim=1)
    return Autoencoder(encoder, quantizer, decoder)
