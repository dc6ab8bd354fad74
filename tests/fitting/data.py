"""Vectors and quantizers for the tests of `fit`."""

from typing import Any

import torch
from torch import Tensor

import quantizers
from quantizers import Quantizer

DIM, SIZE = 8, 16

FITTED: dict[str, dict[str, Any]] = {
    "vq": {},
    "ema_vq": {},
    "cosine": {"name": "vq", "distance": "cosine"},
    "angle": {"name": "vq", "distance": "angle"},
    "projected": {"name": "vq", "code_dim": 3},
    "residual": {"num_quantizers": 3},
    "residual of sizes": {"name": "residual", "codebook_size": [4, 16, 8]},
    "grouped": {"num_groups": 2},
    "grouped residual": {"name": "grouped", "num_groups": 2, "quantizer": "residual", "num_quantizers": 2},
    "multihead": {"num_heads": 2},
    "parallel": {"quantizer": "vq"},
    "opq": {"num_groups": 2},
    "shared stages": {"name": "residual", "num_quantizers": 3, "shared": True},
    "shared groups": {"name": "grouped", "num_groups": 2, "shared": True},
    "simvq": {},
    "bypass": {"quantizer": "residual", "num_quantizers": 2},
}
"""Settings by what they show: options of `create`, and a name where it is another one."""


def build(setting: str, **options: Any) -> Quantizer:
    """A quantizer with the same first codes in every call."""
    given = {"codebook_size": SIZE, **FITTED[setting], **options}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return quantizers.create(given.pop("name", setting), DIM, **given)


def vectors(count: int = 1000, seed: int = 0, dim: int = DIM) -> Tensor:
    """Correlated vectors in clusters."""
    draws = torch.Generator().manual_seed(seed)
    centres = 4 * torch.randn(10, dim, generator=draws)
    mixing = torch.randn(dim, dim, generator=draws) / dim**0.5
    chosen = torch.randint(10, (count,), generator=draws)
    return centres[chosen] + torch.randn(count, dim, generator=draws) @ mixing


def error(quantizer: Quantizer, x: Tensor) -> float:
    """The mean ‖x − value‖² in evaluation, in float64."""
    with torch.no_grad():
        value = quantizer.decode(quantizer.encode(x))
    return float((x.double() - value).square().sum(-1).mean())
