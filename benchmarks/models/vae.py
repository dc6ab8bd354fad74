"""Variational autoencoder (Kingma and Welling: Auto-Encoding Variational Bayes, 2013, arXiv 1312.6114)."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.models.convolutions import check_images, make_decoder, make_encoder


class Posterior(NamedTuple):
    """q(z | x) = N(mean, diag(exp(log_variance))), both [B, n, h, w]."""

    mean: Tensor
    log_variance: Tensor

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Return z = mean + σ · ε, ε ~ N(0, I): [B, n, h, w], with gradients for mean and log variance (section
        2.4).
        """
        noise = torch.randn(self.mean.shape, generator=generator, dtype=self.mean.dtype)
        return self.mean + (self.log_variance / 2).exp() * noise.to(self.mean.device)

    def kl(self) -> Tensor:
        """Return KL(q(z | x) ‖ N(0, I)) = ½ Σ (μ² + σ² − 1 − ln σ²) in nats per image, [B] (appendix B)."""
        excess = torch.expm1(self.log_variance) - self.log_variance
        return (self.mean.square() + excess).flatten(1).sum(1) / 2


class VAEOutput(NamedTuple):
    """The output of a VAE.

    images  [B, C, H, W]
    loss    0-d, added to the mean squared error
    kl      [B], nats per image
    """

    images: Tensor
    loss: Tensor
    kl: Tensor


class VAE(nn.Module):
    """Images [B, channels, H, W] in [−1, 1] → q(z | x) → z [B, dim, H/d, W/d] → images.

    The decoder returns the mean of p(x | z) = N(images, noise² I). For an image of D numbers,

        −ELBO = ‖x − images‖² / (2 noise²) + KL + constant,

    and 2 noise² / D times that is the mean squared error plus `loss` = 2 noise² / D · KL.

    In training z is sampled; evaluation uses its mean. Positions of z are independent in N(0, I). For coherent
    samples, d should therefore equal the images' side, or nearly so.

    Args:
        channels: number of image channels.
        dim: number of channels of z.
        width, downsampling d: see `make_encoder`.
        noise: standard deviation > 0 of the decoder, on the images' scale.

    Raises: ValueError for invalid sizes; InputError, in use, for images of unsuitable shape or dtype.
    """

    def __init__(
        self,
        channels: int = 3,
        *,
        dim: int = 32,
        width: int = 32,
        downsampling: int = 4,
        noise: float = 0.25,
    ) -> None:
        super().__init__()
        if not noise > 0:
            raise ValueError(f"noise is {noise!r}, expected a standard deviation above 0")
        self.channels = channels
        self.dim = dim
        self.downsampling = downsampling
        self.noise = noise
        self.encoder = make_encoder(channels, 2 * dim, width=width, downsampling=downsampling)
        self.decoder = make_decoder(dim, channels, width=width, downsampling=downsampling)

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> VAEOutput:
        posterior = self.encode(images)
        z = posterior.sample(generator) if self.training else posterior.mean
        kl = posterior.kl()
        loss = 2 * self.noise**2 / math.prod(images.shape[1:]) * kl.mean()
        return VAEOutput(self.decode(z), loss, kl)

    def encode(self, images: Tensor) -> Posterior:
        """Return q(z | x)."""
        check_images(images, self.channels, self.downsampling)
        return Posterior(*self.encoder(images).chunk(2, dim=1))

    def decode(self, z: Tensor) -> Tensor:
        """Return the images of z [B, dim, h, w]."""
        return self.decoder(z)

    @torch.no_grad()
    def sample(self, count: int, shape: tuple[int, int], generator: torch.Generator | None = None) -> Tensor:
        """Sample `count` images with z ~ N(0, I) on a grid of `shape` (h, w): [count, C, h·d, w·d]."""
        z = torch.randn(count, self.dim, *shape, generator=generator)
        return self.decode(z.to(next(self.parameters())))
