"""An autoencoder without a quantizer and without noise: what the others are measured against.

Its latents lie where the encoder puts them, and no distribution of them is known. `Autoencoder.sample` draws them
from the Gaussian of the data's latents, and most of what it draws lies where the decoder has never been.
"""

from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from benchmarks.errors import InputError
from benchmarks.models.convolutions import check_images, make_decoder, make_encoder


class Reconstruction(NamedTuple):
    """images: [B, C, H, W]. loss: 0-d, what is added to the mean squared error, here zero."""

    images: Tensor
    loss: Tensor


class Gaussian(NamedTuple):
    """One normal distribution of vectors for each position, which knows nothing of the other positions.

    mean: [h, w, n]. factor: [h, w, n, n], with factor · factorᵀ the covariance.
    """

    mean: Tensor
    factor: Tensor

    @classmethod
    @torch.no_grad()
    def fit(cls, latents: Tensor) -> Self:
        """Mean and covariance of latents [B, n, h, w], at each position. Raises: InputError for fewer than two."""
        if len(latents) < 2:
            raise InputError(f"got {len(latents)} images, expected at least 2 to fit a covariance")
        vectors = latents.double().permute(2, 3, 0, 1)
        centred = vectors - vectors.mean(2, keepdim=True)
        values, axes = torch.linalg.eigh(centred.mT @ centred / (len(latents) - 1))
        factor = axes * values.clamp(min=0).sqrt()[..., None, :]  # also where channels depend on each other
        return cls(vectors.mean(2).to(latents.dtype), factor.to(latents.dtype))

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Latents [count, n, h, w]."""
        noise = torch.randn(count, *self.mean.shape, generator=generator, dtype=self.mean.dtype)
        latents = self.mean + torch.einsum("hwij,bhwj->bhwi", self.factor, noise.to(self.mean.device))
        return latents.permute(0, 3, 1, 2)


class Autoencoder(nn.Module):
    """Images [B, channels, H, W] in [−1, 1] → latents [B, dim, H/d, W/d] → images.

    Args: channels: of the images. dim: of the latents. width, downsampling d: as of `make_encoder`.

    Raises: ValueError for sizes that cannot be; InputError, when used, for images that do not fit.
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
        """Latents [B, dim, h, w]."""
        check_images(images, self.channels, self.downsampling)
        return self.encoder(images)

    def decode(self, latents: Tensor) -> Tensor:
        """Images of latents [B, dim, h, w]."""
        return self.decoder(latents)

    @torch.no_grad()
    def sample(self, count: int, data: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """`count` images of latents drawn from the Gaussian of those of `data`, images [B, C, H, W], B ≥ 2."""
        return self.decode(Gaussian.fit(self.encode(data)).sample(count, generator))
