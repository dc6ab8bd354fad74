"""Count the codes of one or several codebooks in a single row."""

import torch

from quantizers import Quantizer


def count_codebooks(quantizer: Quantizer) -> int:
    """Return the number of codebooks along the last axis of the indices; 1 if that axis holds a pyramid's
    tokens."""
    return quantizer.num_codebooks if quantizer.composed and quantizer.per_vector else 1


def numbered(indices: torch.Tensor, quantizer: Quantizer) -> torch.Tensor:
    """Shift the indices of codebook c by c · K, so that each code has a number of its own. −1 stays −1."""
    if count_codebooks(quantizer) == 1:
        return indices
    first = torch.arange(quantizer.num_codebooks, device=indices.device) * quantizer.codebook_size
    return (indices + first).where(indices >= 0, indices)
