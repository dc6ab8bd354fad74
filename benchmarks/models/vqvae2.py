"""VQ-VAE-2 (Razavi et al.: Generating Diverse High-Fidelity Images with VQ-VAE-2, 2019, arXiv 1906.00446).

images → features → top vectors → top codes                         global content, on half the grid
         features and decoded top codes → bottom vectors → bottom codes        the remaining detail
                          top codes and bottom codes → images
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from typing_extensions import Self

from benchmarks import variants
from benchmarks.errors import InputError
from benchmarks.models import code_maps
from benchmarks.models.convolutions import check_images, make_decoder, make_encoder
from quantizers import Quantizer


class Codes(NamedTuple):
    """The codes of both levels, int64.

    top     [B, h/2, w/2, n_t]
    bottom  [B, h, w, n_b]
    """

    top: Tensor
    bottom: Tensor


class VQVAE2Output(NamedTuple):
    """The output of a VQ-VAE-2.

    images  [B, C, H, W]
    loss    0-d, the sum of the quantizers' losses, added to the mean squared error
    codes   of both levels
    """

    images: Tensor
    loss: Tensor
    codes: Codes


class VQVAE2(nn.Module):
    """Images [B, channels, H, W] in [−1, 1] → top codes and bottom codes → images.

    The bottom grid is h × w = H/d × W/d; the top grid is half of it per side. The bottom encoder sees the decoded
    top codes, so that it need not repeat their content. The decoder sees the vectors of both levels.

    Args:
        top, bottom: quantizers as for `VQVAE`.
        channels: number of image channels.
        width, downsampling d: of the bottom level, see `make_encoder`.

    Raises: the errors of `VQVAE`; InputError, in use, also for images whose sides are not multiples of 2d, and for
    codes
        whose grids do not match.
    """

    def __init__(
        self, top: Quantizer, bottom: Quantizer, *, channels: int = 3, width: int = 32, downsampling: int = 4
    ) -> None:
        super().__init__()
        self.channels = channels
        self.downsampling = downsampling
        self.top_quantizer = code_maps.check_quantizer("top", top)
        self.bottom_quantizer = code_maps.check_quantizer("bottom", bottom)
        features = width * downsampling // 2  # the encoder's channels at this resolution
        self.encoder = make_encoder(channels, features, width=width, downsampling=downsampling)
        self.top_encoder = make_encoder(features, top.dim, width=features, downsampling=2)
        self.top_decoder = make_decoder(top.dim, features, width=features, downsampling=2)
        self.bottom_encoder = nn.Sequential(nn.SiLU(), nn.Conv2d(2 * features, bottom.dim, 1))
        self.top_upsampling = nn.ConvTranspose2d(top.dim, top.dim, 4, stride=2, padding=1)
        self.decoder = make_decoder(top.dim + bottom.dim, channels, width=width, downsampling=downsampling)

    @classmethod
    def named(cls, top: str, bottom: str, *, dim: int, codebook_size: int, **sizes: int) -> Self:
        """Build the model with two quantizers of one size as the command line names them; see
        `benchmarks.variants`.

        Args:
            dim: channels of the quantizers' vectors.
            sizes: the constructor's other arguments. Training aids are up to the training code.
        """
        made = [
            variants.create(name, dim=dim, codebook_size=codebook_size, channel_dim=1) for name in (top, bottom)
        ]
        return cls(*made, **sizes)

    @property
    def sizes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The number of codes of each codebook of the top and of the bottom level."""
        return self.top_quantizer.codebook_sizes, self.bottom_quantizer.codebook_sizes

    def forward(self, images: Tensor) -> VQVAE2Output:
        features = self._features(images)
        top = self.top_quantizer(self.top_encoder(features))
        bottom = self.bottom_quantizer(self._bottom(features, top.quantized))
        codes = Codes(
            code_maps.to_codes(top.indices, self.top_quantizer),
            code_maps.to_codes(bottom.indices, self.bottom_quantizer),
        )
        return VQVAE2Output(self._decoded(top.quantized, bottom.quantized), top.loss + bottom.loss, codes)

    def encode(self, images: Tensor) -> Codes:
        """Return the codes of both levels; the codes of evaluation, in either mode."""
        features = self._features(images)
        top = self.top_quantizer.encode(self.top_encoder(features))
        bottom = self.bottom_quantizer.encode(self._bottom(features, self.top_quantizer.decode(top)))
        return Codes(
            code_maps.to_codes(top, self.top_quantizer), code_maps.to_codes(bottom, self.bottom_quantizer)
        )

    def decode(self, codes: tuple[Tensor, Tensor]) -> Tensor:
        """Return images [B, channels, h·d, w·d] from the top and the bottom codes."""
        top = code_maps.decode(codes[0], self.top_quantizer, "top codes")
        bottom = code_maps.decode(codes[1], self.bottom_quantizer, "bottom codes")
        below = (len(top), 2 * top.shape[2], 2 * top.shape[3])
        if (len(bottom), *bottom.shape[2:]) != below:
            raise InputError(
                f"bottom codes are {len(bottom)} grids of {bottom.shape[2]} × {bottom.shape[3]}, expected "
                f"{below[0]} of {below[1]} × {below[2]}: two positions per side for each top code"
            )
        return self._decoded(top, bottom)

    def _features(self, images: Tensor) -> Tensor:
        check_images(images, self.channels, 2 * self.downsampling)
        return self.encoder(images)

    def _bottom(self, features: Tensor, top: Tensor) -> Tensor:
        """Return the bottom vectors, given the top's quantized ones."""
        return self.bottom_encoder(torch.cat([features, self.top_decoder(top)], 1))

    def _decoded(self, top: Tensor, bottom: Tensor) -> Tensor:
        return self.decoder(torch.cat([self.top_upsampling(top), bottom], 1))
