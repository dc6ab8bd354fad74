"""Convert a quantizer's indices for a map of vectors to codes [B, h, w, n], where n is always present."""

from torch import Tensor

from benchmarks.models.checks import check_codes
from quantizers import Quantizer


def check_quantizer(name: str, quantizer: Quantizer) -> Quantizer:
    """Return the quantizer if it assigns codes to each vector of a map [B, C, h, w].

    Raises: TypeError for another type; ValueError for an unsuitable quantizer.
    """
    if not isinstance(quantizer, Quantizer):
        raise TypeError(f"{name} is {type(quantizer).__name__}, expected a Quantizer")
    kind = type(quantizer).__name__
    if quantizer.codebook_size == 0:
        raise ValueError(f"{name} is {kind}, which has no codes: use Autoencoder, the model without a quantizer")
    if not quantizer.per_vector:
        raise ValueError(f"{name} is {kind}, whose codes belong to a pyramid, expected codes for each vector")
    if quantizer.channel_dim != 1:
        raise ValueError(f"{name} has channel_dim={quantizer.channel_dim}, expected 1, for maps [B, C, h, w]")
    return quantizer


def to_codes(indices: Tensor, quantizer: Quantizer) -> Tensor:
    """Return the quantizer's indices of a map as codes [B, h, w, n]."""
    return indices if quantizer.composed else indices[..., None]


def decode(codes: Tensor, quantizer: Quantizer, name: str = "codes") -> Tensor:
    """Decode codes [B, h, w, n] to vectors [B, dim, h, w]. Raises: InputError for codes out of range."""
    check_codes(name, codes, quantizer.codebook_sizes)
    return quantizer.decode(codes if quantizer.composed else codes[..., 0])
