"""What the exported forms of operations share.

A graph from `torch.export` contains this library's operations as they are, which only a process that imports the
library can run. The modules named `exported` compute the same with operations that every runtime supports,
including ONNX runtimes, without loops over rows or branches on values. They loop over blocks of codes, whose
number is known when a graph is made, so that no graph contains an N × K matrix.

PyTorch can differentiate them to any order; it then stores all blocks, which amounts to an N × K matrix.
"""

import torch
from torch import Tensor

BLOCK = 2048  # codes whose scores are in memory at once


def first_highest(blocks: list[Tensor]) -> Tensor:
    """Return the first column of the largest number in each row of blocks [N, width], int64 [N]."""
    largest = torch.stack([block.amax(-1) for block in blocks])  # [blocks, N]
    block = (largest >= largest.amax(0)).to(torch.int32).argmax(0)
    columns = torch.stack([(each >= each.amax(-1, keepdim=True)).to(torch.int32).argmax(-1) for each in blocks])
    return columns.gather(0, block[None])[0] + block * blocks[0].shape[1]
