"""A quantizer's indices of a map of vectors as codes [B, h, w, n], n its codebooks: that axis is always there."""

from torch import Tensor

from benchmarks.models.checks import check_codes
from quantizers import Quantizer


def check_quantizer(name: str, quantizer: Quantizer) -> Quantizer:
    """One that gives each vector of a map [B, C, h, w] codes of its own.

    Raises: TypeError for what is no Quantizer; ValueError for one that does not fit.
    """
    if not isinstance(quantizer, Quantizer):
        raise TypeError(f"{name} is {type(quantizer).__name__}, expected a Quantizer")
    kind = type(quantizer).__name__
    if quantizer.codebook_size == 0:
        raise ValueError(f"{name} is {kind}, which has no codes: Autoencoder is the model without a quantizer")
    if not quantizer.per_vector:
        raise ValueError(f"{name} is {kind}, whose codes are of a pyramid, expected one with codes of each vector")
    if quantizer.channel_dim != 1:
        raise ValueError(f"{name} has channel_dim={quantizer.channel_dim}, expected 1, for maps [B, C, h, w]")
    return quantizer


def to_codes(indices: Tensor, quantizer: Quantizer) -> Tensor:
    """The quantizer's indices of a map as codes [B, h, w, n]."""
    return indices if quantizer.composed else indices[..., None]


def decode(codes: Tensor, quantizer: Quantizer, name: str = "codes") -> Tensor:
    """Codes [B, h, w, n], each in its alphabet, to vectors [B, dim, h, w]. Raises: InputError for other codes."""
    check_codes(name, codes, quantizer.codebook_sizes)
    return quantizer.decode(codes if quantizer.composed else codes[..., 0])
