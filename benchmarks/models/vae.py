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
        """z = mean + σ · ε, ε ~ N(0, I): [B, n, h, w], with gradients of mean and log variance (section 2.4)."""
        noise = torch.randn(self.mean.shape, generator=generator, dtype=self.mean.dtype)
        return self.mean + (self.log_variance / 2).exp() * noise.to(self.mean.device)

    def kl(self) -> Tensor:
        """KL(q(z | x) ‖ N(0, I)) = ½ Σ (μ² + σ² − 1 − ln σ²) in nats an image, [B] (appendix B)."""
        excess = torch.expm1(self.log_variance) - self.log_variance
        return (self.mean.square() + excess).flatten(1).sum(1) / 2


class VAEOutput(NamedTuple):
    """images: [B, C, H, W]. loss: 0-d, what is added to the mean squared error. kl: [B], nats an image."""

    images: Tensor
    loss: Tensor
    kl: Tensor


class VAE(nn.Module):
    """Images [B, channels, H, W] in [−1, 1] → q(z | x) → z [B, dim, H/d, W/d] → images.

    The decoder gives the mean of p(x | z) = N(images, noise² I), so that of an image of D numbers

        −ELBO = ‖x − images‖² / (2 noise²) + KL + constant,

    and 2 noise² / D times that is the mean squared error plus `loss` = 2 noise² / D · KL.

    z is drawn in training; evaluation takes its mean. Positions of z are independent in N(0, I): for samples that
    hang together, d should be the images' side, or near it.

    Args:
        channels: of the images. dim: of z. width, downsampling d: as of `make_encoder`.
        noise: standard deviation > 0 of the decoder, on the images' scale.

    Raises: ValueError for sizes that cannot be; InputError, when used, for images that do not fit.
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
        """q(z | x)."""
        check_images(images, self.channels, self.downsampling)
        return Posterior(*self.encoder(images).chunk(2, dim=1))

    def decode(self, z: Tensor) -> Tensor:
        """Images of z [B, dim, h, w]."""
        return self.decoder(z)

    @torch.no_grad()
    def sample(self, count: int, shape: tuple[int, int], generator: torch.Generator | None = None) -> Tensor:
        """`count` images of z ~ N(0, I) on a grid of `shape` (h, w): [count, C, h·d, w·d]."""
        z = torch.randn(count, self.dim, *shape, generator=generator)
        return self.decode(z.to(next(self.parameters())))
