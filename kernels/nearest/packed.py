"""A codebook in the memory layout of the compiled search."""

from typing import NamedTuple

import torch
from torch import Tensor

from quantizers.kernels.common.compiled.call import Argument, call, threads
from quantizers.kernels.common.compiled.library import library


class Packed(NamedTuple):
    """See quantizers_pack in pack.cpp."""

    codes: Tensor  # [K, D] float32, contiguous
    packed: Tensor
    bias: Tensor
    centre: Tensor
    extent: Tensor
    order: Tensor | None = None  # [K] int32, the code at each place; None: in order

    def arguments(self) -> list[Argument]:
        """Return the arguments for the functions of nearest.cpp."""
        return [self.codes, *self.codes.shape, self.packed, self.bias, self.centre, self.extent, self.order]

    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self if tensor is not None)


def pack(codes: Tensor, bias: Tensor | None = None, order: Tensor | None = None) -> Packed:
    """Pack codes [K, D], float32 and contiguous, for a search by distance, or by score with a bias [K]."""
    size, dim = codes.shape
    padded, margin = leaves(size) * library().quantizers_codes_per_leaf(), library().quantizers_padding()
    packed, packed_bias = codes.new_empty(padded * dim + margin), codes.new_empty(padded + margin)
    centre, extent = codes.new_empty(dim), codes.new_empty(2, dtype=torch.float64)
    number = threads(size * dim)
    call("quantizers_pack", [codes, bias, order, size, dim, number, packed, packed_bias, centre, extent])
    return Packed(codes, packed, packed_bias, centre, extent, order)


def leaves(size: int) -> int:
    """Return the number of leaves of a codebook of this size."""
    return -(-size // int(library().quantizers_codes_per_leaf()))
