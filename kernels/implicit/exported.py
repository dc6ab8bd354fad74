"""The nearest of a network's codes in PyTorch's own operations, for graphs of other runtimes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from quantizers.kernels.common.exported import first_highest
from quantizers.kernels.common.wide import wide

BLOCK = 256  # codes that are in memory at once for each vector


def nearest_implicit_code(
    targets: Tensor, context: Tensor, codes: Tensor, weight: Tensor, bias: Tensor, blocks: Sequence[Tensor]
) -> Tensor:
    """As kernels/implicit/reference.py, with [N, BLOCK, D] numbers in memory at once."""
    dim = targets.shape[-1]
    code_terms = codes + codes @ weight[:, :dim].T + bias
    context_term = context @ weight[:, dim:].T
    distances = []
    for block_terms in torch.split(code_terms, BLOCK):
        values = block_terms + context_term[:, None]
        for up, down in zip(blocks[::2], blocks[1::2], strict=True):
            values = values + torch.relu(values @ up.T) @ down.T
        values = wide(values)
        distances.append((values * (values - 2 * wide(targets[:, None]))).sum(-1))
    return first_highest([-distance for distance in distances])
