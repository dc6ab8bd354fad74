"""A plain autoencoder without quantizer and without noise, for comparison.

Its latents lie wherever the encoder places them, and their distribution is unknown. `Autoencoder.sample` draws
from a Gaussian fitted to the data's latents. Most of its samples lie where the decoder has never been trained.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from typing_extensions import Self

from benchmarks.errors import InputError
from benchmarks.models.convolutions import check_images, make_decoder, make_encoder


class Reconstruction(NamedTuple):
    """The output of an autoencoder.

    images  [B, C, H, W]
    loss    0-d, added to the mean squared error; zero here
    """

    images: Tensor
    loss: Tensor


class Gaussian(NamedTuple):
    """A normal distribution of vectors for each position, independent of the other positions.

    mean    [h, w, n]
    factor  [h, w, n, n], with factor · factorᵀ the covariance
    """

    mean: Tensor
    factor: Tensor

    @classmethod
    @torch.no_grad()
    def fit(cls, latents: Tensor) -> Self:
        """Fit mean and covariance to latents [B, n, h, w] at each position. Raises: InputError for fewer than two
        images.
        """
        if len(latents) < 2:
            raise InputError(f"got {len(latents)} images, expected at least 2 to fit a covariance")
        vectors = latents.double().permute(2, 3, 0, 1)
        centred = vectors - vectors.mean(2, keepdim=True)
        values, axes = torch.linalg.eigh(centred.mT @ centred / (len(latents) - 1))
        factor = axes * values.clamp(min=0).sqrt()[..., None, :]  # valid even if channels are linearly dependent
        return cls(vectors.mean(2).to(latents.dtype), factor.to(latents.dtype))

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Return latents [count, n, h, w]."""
        noise = torch.randn(count, *self.mean.shape, generator=generator, dtype=self.mean.dtype)
        latents = self.mean + torch.einsum("hwij,bhwj->bhwi", self.factor, noise.to(self.mean.device))
        return latents.permute(0, 3, 1, 2)


class Autoencoder(nn.Module):
    """Images [B, channels, H, W] in [−1, 1] → latents [B, dim, H/d, W/d] → images.

    Args:
        channels: number of image channels.
        dim: number of latent channels.
        width, downsampling d: see `make_encoder`.

    Raises: ValueError for invalid sizes; InputError, in use, for images of unsuitable shape or dtype.
    """

    def __init__(self, channels: int = 3, *, dim: int = 32, width: int = 32, downsampling: int = 4) -> None:
        super().__init__()
        self.channels = channels
        self.downsampling = downsampling
        self.encoder = make_encoder(channels, dim, width=width, downsampling=downsampling)
        self.decoder = make_decoder(dim, channels, width=width, downsampling=downsampling)

    def forward(self, images: Tensor) -> Reconstruction:
        latents = self.encode(images)
        return Reconstruction(self.decode(latents), latents.new_zeros(()))

    def encode(self, images: Tensor) -> Tensor:
        """Return latents [B, dim, h, w]."""
        check_images(images, self.channels, self.downsampling)
        return self.encoder(images)

    def decode(self, latents: Tensor) -> Tensor:
        """Return the images of latents [B, dim, h, w]."""
        return self.decoder(latents)

    @torch.no_grad()
    def sample(self, count: int, data: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Sample `count` images from the Gaussian of the latents of `data`, images [B, C, H, W], B ≥ 2."""
        return self.decode(Gaussian.fit(self.encode(data)).sample(count, generator))
