"""How many codes each scale of a multi-scale quantizer uses."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from quantizers import metrics
from quantizers.composite.pyramid_quantizer import PyramidQuantizer


@dataclass(frozen=True)
class ScaleUsage:
    """The codes of one scale.

    size        (h, w) of its map
    vectors     number of quantized vectors, which bounds the number of codes that can occur
    codes       K, the number of codes
    used        number of codes that occur at least once
    perplexity  2^entropy of the codes' frequencies
    """

    size: tuple[int, ...]
    vectors: int
    codes: int
    used: int
    perplexity: float


def scale_usage(quantizer: PyramidQuantizer, tokens: Tensor, size: Sequence[int]) -> list[ScaleUsage]:
    """Count the codes of each scale, the coarsest first.

    Args:
        tokens: [B, L], of all scales; −1 does not count.
        size: (h, w) of the quantized maps.
    """
    maps = quantizer.split(tokens, size)
    return [_usage(tokens_of, codes) for tokens_of, codes in zip(maps, quantizer.codebook_sizes, strict=True)]


def _usage(tokens: Tensor, codes: int) -> ScaleUsage:
    counts = metrics.code_counts(tokens.cpu(), codes)
    return ScaleUsage(
        tuple(tokens.shape[1:]),
        int(counts.sum()),
        codes,
        int((counts > 0).sum()),
        metrics.perplexity(counts),
    )
