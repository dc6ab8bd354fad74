"""Stand-ins with the signatures of `quantizers.fitting`, until that exists."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from quantizers.core.base import Quantizer
from quantizers.vectors import Vectors


def fit(quantizer: Quantizer, data: Vectors, *, seed: int = 0, progress: Any = None, **options: Any) -> None:
    """Fit the codebooks to all vectors."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        quantizer.initialize_from(torch.cat(list(data.blocks(65536))))


def encode_vectors(
    quantizer: Quantizer, data: Vectors, *, batch_size: int = 65536, progress: Any = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Blocks of vectors with their indices."""
    for block in data.blocks(batch_size):
        yield block, quantizer.encode(block)
