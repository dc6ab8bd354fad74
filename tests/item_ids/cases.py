"""Quantizers and embeddings for the tests of semantic IDs."""

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

import quantizers
from quantizers import Quantizer
from quantizers.composite.rotated import RotatedQuantizer
from tests.cases import normal

DIM = 4

QUANTIZERS: dict[str, dict[str, Any]] = {
    "residual": {"codebook_size": (3, 2, 4)},
    "vq": {"codebook_size": 24},
    "grouped": {"codebook_size": 5, "num_groups": 2},
    "multihead": {"codebook_size": 5, "num_heads": 2},
    "opq": {"codebook_size": 5, "num_groups": 2},
    "qinco": {"codebook_size": 3, "num_quantizers": 3, "hidden_dim": 4, "blocks": 1},
    "fsq": {"levels": (3, 2, 2, 2)},
}
"""With 24 to 27 IDs each. Values of all but QINCo's codebooks add up."""

DISTINCT = ("next_code", "auction")
"""Policies that move items to free IDs."""


def build(name: str, seed: int, **options: Any) -> Quantizer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        quantizer = quantizers.create(name, DIM, **{**QUANTIZERS[name], **options}).eval()
    if isinstance(quantizer, RotatedQuantizer):
        quantizer.set_rotation(torch.linalg.qr(normal(seed, DIM, DIM))[0].float())
    return quantizer


def embeddings(kind: str, seed: int, count: int) -> Tensor:
    """[count, DIM]: normal, from few values, or all equal."""
    x = normal(seed, count, DIM, dtype=torch.float32)
    return {"normal": x, "grid": x.round(), "equal": torch.ones_like(x)}[kind]


names = st.sampled_from(sorted(QUANTIZERS))
kinds = st.sampled_from(["normal", "grid", "equal"])
seeds = st.integers(0, 999)
