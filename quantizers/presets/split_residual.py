"""Two residual quantizers of the same vectors, as in Mimi."""

from typing import Any

from quantizers.composite.parallel import ParallelQuantizer
from quantizers.composite.residual import ResidualQuantizer
from quantizers.core.arguments.checks import Size
from quantizers.core.arguments.forwarding import forwarding, forwards
from quantizers.core.arguments.options import checked


@forwards(ResidualQuantizer, others="each half; options('residual') lists them")
@checked
def split_residual(
    dim: Size,
    codebook_size: Size,
    *,
    num_quantizers: Size = 8,
    num_semantic: Size = 1,
    channel_dim: int = -1,
    **options: Any,
) -> ParallelQuantizer:
    """Build two residual quantizers side by side: a semantic one, and one for the rest of the codebooks.

    A model trains the semantic half by distillation, so it must not depend on the other half, and it should carry
    little of the waveform: both quantize x itself. The value is the mean of the two halves, each with projections
    of its own.

    Args:
        dim: channels of x. codebook_size: K, of each codebook.
        num_quantizers: how many codebooks the halves have together.
        num_semantic: how many of them belong to the semantic half.
        channel_dim: axis of x's channels.
        options: further options of "residual", for both halves.

    Shapes: x [..., dim] → quantized [..., dim], indices [..., num_quantizers], the semantic ones first, loss [].

    Raises: ValueError unless `num_quantizers` is larger than `num_semantic`.

    Source: Défossez et al.: Moshi, 2024 (arXiv 2410.00037), §3.3.
    """
    if num_quantizers <= num_semantic:
        raise ValueError(f"num_quantizers is {num_quantizers}, expected more than num_semantic, {num_semantic}")
    sizes = (num_semantic, num_quantizers - num_semantic)
    with forwarding(split_residual):
        halves = [
            ResidualQuantizer.from_options(dim, codebook_size=codebook_size, num_quantizers=size, **options)
            for size in sizes
        ]
    return ParallelQuantizer(dim, halves, channel_dim=channel_dim)
