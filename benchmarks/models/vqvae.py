"""VQ-VAE (van den Oord et al.: Neural Discrete Representation Learning, 2017, arXiv 1711.00937) with any
quantizer.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn
from typing_extensions import Self

from benchmarks import variants
from benchmarks.models import code_maps
from benchmarks.models.convolutions import check_images, make_decoder, make_encoder
from quantizers import Quantizer


class VQVAEOutput(NamedTuple):
    """The output of an autoencoder around a quantizer.

    images  [B, C, H, W]
    loss    0-d, the quantizer's loss, added to the mean squared error
    codes   [B, h, w, n] of a VQVAE, [B, L] of a MultiScaleVQVAE
    """

    images: Tensor
    loss: Tensor
    codes: Tensor


class QuantizedAutoencoder(nn.Module, ABC):
    """An encoder and a decoder of images around a quantizer: what VQ-VAE and its multi-scale form share.

    Args:
        quantizer: with channel_dim=1; a subclass checks whatever else it needs.
        channels: number of image channels.
        width, downsampling d: see `make_encoder`.

    Raises: ValueError or TypeError for invalid sizes and quantizers; InputError, in use, for unsuitable images and
    codes.
    """

    def __init__(self, quantizer: Quantizer, *, channels: int = 3, width: int = 32, downsampling: int = 4) -> None:
        super().__init__()
        self.channels = channels
        self.downsampling = downsampling
        self.quantizer = self._check_quantizer(quantizer)
        self.encoder = make_encoder(channels, quantizer.dim, width=width, downsampling=downsampling)
        self.decoder = make_decoder(quantizer.dim, channels, width=width, downsampling=downsampling)

    @classmethod
    def named(cls, variant: str, *, dim: int, codebook_size: int, **sizes: int) -> Self:
        """Build the model with a quantizer as the command line names it; see `benchmarks.variants`.

        Args:
            dim: channels of the quantizer's vectors.
            sizes: the constructor's other arguments. The variant's training aids are up to the training code.
        """
        quantizer = variants.create(variant, dim=dim, codebook_size=codebook_size, channel_dim=1)
        return cls(quantizer, **sizes)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of codes of each codebook, for a prior."""
        return self.quantizer.codebook_sizes

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return the (h, w) of the encoder's map for an image of this size."""
        return height // self.downsampling, width // self.downsampling

    def forward(self, images: Tensor) -> VQVAEOutput:
        check_images(images, self.channels, self.downsampling)
        out = self.quantizer(self.encoder(images))
        return VQVAEOutput(self.decoder(out.quantized), out.loss, self._to_codes(out.indices))

    def encode(self, images: Tensor) -> Tensor:
        """Return the codes of images [B, channels, H, W]; those of evaluation, in either mode."""
        check_images(images, self.channels, self.downsampling)
        return self._to_codes(self.quantizer.encode(self.encoder(images)))

    @abstractmethod
    def _check_quantizer(self, quantizer: Quantizer) -> Quantizer:
        """Return a quantizer that fits the model. Raises: ValueError or TypeError."""

    @abstractmethod
    def _to_codes(self, indices: Tensor) -> Tensor:
        """Return the quantizer's indices in the model's layout of codes."""


class VQVAE(QuantizedAutoencoder):
    """Images [B, channels, H, W] in [−1, 1] → codes [B, H/d, W/d, n] int64 → images.

    The quantizer has codes for each vector; n is its number of codebooks. See QuantizedAutoencoder for the
    arguments.

    An image that is not finite gets codes of −1, which `decode` rejects.
    """

    def decode(self, codes: Tensor) -> Tensor:
        """Return images [B, channels, h·d, w·d] from codes [B, h, w, n]."""
        return self.decoder(code_maps.decode(codes, self.quantizer))

    def _check_quantizer(self, quantizer: Quantizer) -> Quantizer:
        return code_maps.check_quantizer("quantizer", quantizer)

    def _to_codes(self, indices: Tensor) -> Tensor:
        return code_maps.to_codes(indices, self.quantizer)
