"""The indices of vectors that may be larger than memory."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from quantizers.core.arguments.checks import check_at_least
from quantizers.core.base import Quantizer
from quantizers.fitting.places import device_of
from quantizers.fitting.report import OnProgress, Progress
from quantizers.vectors import open_vectors


@torch.no_grad()
def encode_vectors(
    quantizer: Quantizer, data: Any, *, batch_size: int = 2**16, progress: OnProgress | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Encode vectors block by block.

        >>> import torch, quantizers
        >>> from quantizers.fitting import encode_vectors
        >>> quantizer = quantizers.create("residual", 8, 16, num_quantizers=2)
        >>> blocks = encode_vectors(quantizer, torch.randn(100, 8), batch_size=64)
        >>> [tuple(indices.shape) for x, indices in blocks]
        [(64, 2), (36, 2)]

    Args:
        quantizer: of vectors with `dim` channels, on any device.
        data: as in `quantizers.vectors.open_vectors`: a tensor, an array, a file, or batches.
        batch_size: how many vectors are encoded at once.
        progress: called with a `Progress` after each block.

    Yields: x [n, dim] on the CPU or where the data are, and their indices [n] or [n, num_codebooks] on the
        quantizer's device; −1 for a vector that is not finite.

    Raises: as `open_vectors`.
    """
    rows = check_at_least("batch_size", batch_size, 1)
    vectors, done = open_vectors(data, dim=quantizer.dim), 0
    device = device_of(quantizer)
    channels_last = quantizer.channel_dim == -1
    for x in vectors.blocks(rows):
        rows_of_x = x if channels_last else x.movedim(-1, quantizer.channel_dim)
        indices = quantizer.encode(rows_of_x.to(device))
        yield x, indices
        done += len(x)
        if progress is not None:
            progress(Progress(0, quantizer.num_codebooks, "encoding", done, vectors.count, None, None))
