"""A VQ-VAE whose codes form a pyramid of scales (Tian et al.: Visual Autoregressive Modeling, 2024, arXiv
2404.02905).
"""

from collections.abc import Sequence

from torch import Tensor

from benchmarks.errors import InputError
from benchmarks.models.checks import check_codes
from benchmarks.models.vqvae import QuantizedAutoencoder
from quantizers import Quantizer
from quantizers.composite.pyramid_quantizer import PyramidQuantizer

AXES = 2  # of a map


class MultiScaleVQVAE(QuantizedAutoencoder):
    """Images [B, channels, H, W] in [−1, 1] → tokens [B, L] int64 of all scales, the coarsest first → images.

    The quantizer is a multi-scale one with axes=2, for maps [B, dim, h, w] of the encoder; h × w = H/d × W/d. See
    QuantizedAutoencoder for the arguments.

    Scales may be left out from the end: the decoder then draws what the first scales contain.

    A cell whose vectors are not finite gets token −1, which `decode` rejects.
    """

    def scales(self, size: Sequence[int]) -> list[tuple[int, ...]]:
        """Return the (h, w) of each scale for a map of `size`."""
        return [tuple(each) for each in self.quantizer.scale_sizes(size)]

    def decode(self, tokens: Tensor, size: Sequence[int]) -> Tensor:
        """Return images [B, channels, h·d, w·d] from the tokens [B, n] of all scales, or of the first ones.

        Args: size: (h, w) of the encoder's map.

        Raises: InputError for another number of tokens, and for tokens out of range.
        """
        self._check_tokens(tokens, size)
        return self.decoder(self.quantizer.decode(tokens, size))

    def lengths(self, size: Sequence[int]) -> list[int]:
        """Return the number of tokens of the first scale, the first two, and so on."""
        lengths, count = [], 0
        for height, width in self.scales(size):
            count += height * width
            lengths.append(count)
        return lengths

    def _check_tokens(self, tokens: Tensor, size: Sequence[int]) -> None:
        lengths = self.lengths(size)
        if tokens.dim() != 2 or tokens.shape[1] not in lengths:
            raise InputError(
                f"tokens have shape {tuple(tokens.shape)}, expected [B, L] for a map of {size[0]} × {size[1]}, "
                f"where L is {', '.join(map(str, lengths[:-1]))} or {lengths[-1]}, one for each number of scales"
            )
        maps = self.quantizer.split(tokens, size)
        for number, (each, codes) in enumerate(zip(maps, self.sizes, strict=False)):
            check_codes(f"tokens of scale {number}", each[..., None], (codes,))

    def _check_quantizer(self, quantizer: Quantizer) -> Quantizer:
        kind = type(quantizer).__name__
        if not isinstance(quantizer, PyramidQuantizer):
            raise TypeError(f"quantizer is {kind}, expected a multi-scale quantizer, such as VARQuantizer")
        if quantizer.axes != AXES or quantizer.channel_dim != 1:
            raise ValueError(
                f"quantizer has axes={quantizer.axes} and channel_dim={quantizer.channel_dim}, expected "
                f"axes={AXES} and channel_dim=1, for maps [B, C, h, w]"
            )
        return quantizer

    def _to_codes(self, indices: Tensor) -> Tensor:
        return indices
