"""Vectors to diagnose, and what a diagnosis of them finds."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from quantizers import diagnose


def drawn(count: int, dim: int, seed: int = 0) -> Tensor:
    """Gaussian vectors [count, dim]."""
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def kinds(model: nn.Module, batches: Iterable[Tensor], only: str | None = None) -> list[str]:
    """The kinds of the findings; with `only`, as often as this kind occurs."""
    found = [finding.kind for finding in diagnose(model, batches).findings]
    return found if only is None else [kind for kind in found if kind == only]
