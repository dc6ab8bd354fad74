"""A k-d tree over the codes of a codebook, for a search that leaves most of them out.

The order of the codes is kept while they move. The boxes are those of the present codes, so that a search is exact
with any order; an old one only rules out less. Equations (13) to (16) of kernels/nearest/README.md.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from quantizers.kernels.common.compiled.call import call, threads
from quantizers.kernels.common.compiled.library import library
from quantizers.kernels.nearest.packed import Packed, leaves

SAMPLE = 2048  # codes whose covariance yields the axes
ITERATIONS = 8  # of the subspace iteration


class Order(NamedTuple):
    """Which codes share a leaf, and the planes that divide them. See quantizers_tree in tree.cpp."""

    codes: Tensor  # [K] int32
    axes: Tensor  # [D, columns] float32, negative
    axis: Tensor  # [leaves − 1] int32
    cut: Tensor  # [leaves − 1] float32


class Boxes(NamedTuple):
    """The boxes of the leaves of a packed codebook and of their groups. See quantizers_boxes in tree.cpp."""

    leaves: Tensor
    groups: Tensor
    slack: Tensor  # [1] float64


def grow(codes: Tensor, centre: Tensor) -> Order:
    """Return a new order of codes [K, D] around their centre [D], float32 and contiguous."""
    size, dim = codes.shape
    order, axis = torch.empty(size, dtype=torch.int32), torch.empty(leaves(size) - 1, dtype=torch.int32)
    cut, axes = torch.empty(leaves(size) - 1), _axes(codes, centre)
    call("quantizers_tree", [codes, size, dim, centre, axes, threads(size * dim), order, axis, cut])
    return Order(order, axes, axis, cut)


def fit(packed: Packed, order: Order) -> Boxes:
    """Return the boxes of a codebook that is packed in this order."""
    size, dim = packed.codes.shape
    count = leaves(size)
    outer = library().quantizers_groups(count)
    boxes, groups = (
        packed.codes.new_empty(library().quantizers_boxes_size(number, dim)) for number in (count, outer)
    )
    slack, number = packed.codes.new_empty(1, dtype=torch.float64), threads(size * dim)
    call("quantizers_boxes", [packed.packed, packed.bias, size, dim, order.axes, number, boxes, groups, slack])
    return Boxes(boxes, groups, slack)


def _axes(codes: Tensor, centre: Tensor) -> Tensor:
    """Return the negative principal axes of codes [K, D] that coordinates need, as columns [D, padded]."""
    dim, count = codes.shape[1], library().quantizers_axis_count(codes.shape[1])
    sample = codes[:: -(-len(codes) // SAMPLE)]
    centred = (sample - centre).nan_to_num(0.0, 0.0, 0.0).double()
    axes = codes.new_zeros(dim, library().quantizers_axes())
    axes[:, :count] = -_principal(centred.T @ centred, count)
    return axes


def _principal(covariance: Tensor, count: int) -> Tensor:
    """Return orthonormal columns [D, count] near the leading eigenvectors of a matrix, the largest first."""
    scale = covariance.abs().amax().clamp(min=torch.finfo(torch.float64).tiny)
    if count == len(covariance):
        vectors: Tensor = torch.linalg.eigh(covariance / scale)[1]
        return vectors.flip(1)
    start = torch.randn(len(covariance), count, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    basis: Tensor = torch.linalg.qr(start)[0]
    for _ in range(ITERATIONS):
        basis = torch.linalg.qr(covariance / scale @ basis)[0]
    return basis
