"""Settings of the comparison of priors: a multi-scale autoencoder, and three transformers of the same size."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.chain.settings import DIGITS, PHOTOGRAPHS, TRANSFORMER, Autoencoding, Fitting


@dataclass(frozen=True)
class Comparing:
    """What is trained and sampled for the comparison, beside the autoencoder and the PixelCNN of a run.

    autoencoding  the multi-scale autoencoder; its quantizer gets the scales from `sides`
    sides         codes per side of each scale, as far as they are below those of the encoder's map, which follow
    fitting       of each transformer: raster, masked and next-scale
    passes        forward passes in which the masked prior fills a grid
    together      images of a timed batch
    guidance      of a second set of samples of the next-scale prior, towards their classes; 0 for none
    """

    autoencoding: Autoencoding
    sides: tuple[int, ...]
    fitting: Fitting
    passes: int = 8
    together: int = 100
    guidance: float = 0.0


def with_scales(variant: str, sides: Sequence[int], side: int) -> str:
    """Return the variant with the scales of a map of `side` × `side`: the sides below it, then its own.

    >>> with_scales("var", (1, 2, 3, 4, 8), 4)
    'var:scales=(0.25, 0.5, 0.75, 1.0)'
    """
    scales = (*(each / side for each in sides if each < side), 1.0)
    return f"{variant}:scales={scales}"


RECIPE = "var:quantizer=ema_vq:decay=0.9:shared=False:replace=dead"
"""The multi-scale quantizer and its training aids that keep the coarse scales in use, see `scale_recipes`."""

COMPARING = {
    # With a scale of 3 × 3 as well there are so many codes that a large batch takes longer than in raster order.
    DIGITS: Comparing(
        Autoencoding(DIGITS, RECIPE, 64, 16, 32, 2, 1200, 64, 3e-3),
        (1, 2),
        Fitting(TRANSFORMER, 64, 3, 0.3, 600, 64, 2e-3),
        guidance=1.0,
    ),
    # 341 codes of 6 bits, about as many bits as the 256 codes of 8 bits of the other autoencoder.
    PHOTOGRAPHS: Comparing(
        Autoencoding(PHOTOGRAPHS, RECIPE, 64, 32, 32, 4, 600, 8, 3e-3),
        (1, 2, 4, 8),
        Fitting(TRANSFORMER, 96, 3, 0.1, 200, 8, 2e-3),
        together=10,
    ),
}
