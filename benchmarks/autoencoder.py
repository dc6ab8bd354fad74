"""A small convolutional autoencoder with a quantizer between encoder and decoder.

    image [B, 3, 32, 32] -> encoder -> [B, dim, 8, 8] -> quantizer -> [B, dim, 8, 8] -> decoder -> [B, 3, 32, 32]

Images lie in [−1, 1]. No layer fixes the image size: any side lengths that are multiples of 4 work.
"""

import torch
from torch import nn

from benchmarks import variants
from benchmarks.models import convolutions
from quantizers import QuantizerOutput

DOWNSAMPLING = 4  # pixels per side of each latent vector
WIDTH = 32  # channels at half resolution; twice as many at quarter resolution


class Autoencoder(nn.Module):
    """Encoder, quantizer and decoder. The code does not depend on the kind of quantizer."""

    def __init__(self, encoder: nn.Module, quantizer: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.quantizer = quantizer
        self.decoder = decoder

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, QuantizerOutput]:
        """Return the reconstruction, in the images' shape, and the quantizer's output."""
        out = self.quantizer(self.encoder(images))
        return self.decoder(out.quantized), out


def make_encoder(dim: int) -> nn.Sequential:
    """Return a network from [B, 3, H, W] to [B, dim, H/4, W/4]."""
    return convolutions.make_encoder(3, dim, width=WIDTH, downsampling=DOWNSAMPLING)


def make_decoder(dim: int) -> nn.Sequential:
    """Return a network from [B, dim, H/4, W/4] to [B, 3, H, W]."""
    return convolutions.make_decoder(dim, 3, width=WIDTH, downsampling=DOWNSAMPLING)


def build(variant: str, *, dim: int, codebook_size: int, seed: int) -> Autoencoder:
    """Build the autoencoder around a variant of a quantizer. Equal seeds give equal encoders and decoders.

    The quantizer is constructed last, so that its random draws cannot change the other weights.
    """
    torch.manual_seed(seed)
    encoder, decoder = make_encoder(dim), make_decoder(dim)
    quantizer = variants.create(variant, dim=dim, codebook_size=codebook_size, channel_dim=1)
    return Autoencoder(encoder, quantizer, decoder)
