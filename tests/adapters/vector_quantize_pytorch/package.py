"""The package vector-quantize-pytorch, for the tests of its contracts: small modules of its classes."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.adapters.common import agrees

package = pytest.importorskip("vector_quantize_pytorch", reason="the extra `peers` has it")
EPS = torch.finfo(torch.float32).eps
WIDTH, CODES = 8, 16


def made(name: str, **options: Any) -> Any:
    """One of the package's, small."""
    sizes: dict[str, Any] = {"dim": WIDTH}
    if "FSQ" in name or name == "FSP":
        sizes["levels"] = [5, 4, 3]
    else:
        sizes["codebook_size"] = CODES
    if "Residual" in name:
        sizes["num_quantizers"] = 3
    torch.manual_seed(0)
    return getattr(package, name)(**{**sizes, **options})


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def trained(name: str, steps: int = 5, **options: Any) -> Any:
    """One whose state has left where it began."""
    module = made(name, **options)
    optimizer = torch.optim.Adam([*module.parameters(), nn.Parameter(torch.zeros(1))], lr=1e-2)
    for step in range(steps):
        quantized, _, *loss = module(normal(2, 40, WIDTH, seed=step).requires_grad_())
        (quantized.square().mean() + sum(part.sum() for part in loss)).backward()
        optimizer.step()
        optimizer.zero_grad()
    return module.eval()


def same_rows(new: Tensor, reference: Tensor, z: Tensor, codebook: Tensor) -> Tensor:
    """Which rows [...] have the same index, after a check that only those between two codes do not."""
    assert agrees(new.reshape(-1), reference.reshape(-1), z.reshape(-1, z.shape[-1]), codebook)
    return new == reference
