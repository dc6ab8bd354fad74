"""An order of the codes in which neighbours are near: the leaves of a k-d tree, as plain PyTorch builds it.

The tree splits at medians of principal coordinates. A search may use any order, also one of other codes, since it
computes the boxes of the leaves from the codes that it is given. Only the share of the leaves that it skips
depends on the order.
"""

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from quantizers.kernels.nearest.triton.tiles import Layout, Search, Tiles, round_up

PARTS = 8  # of a leaf: the tree goes on below the leaves, so that rows that share a tile are near each other
COORDINATES = 8  # of a vector; those beyond the axes and the distance from them are zero
FEW_CHANNELS = 8  # up to these, each channel has an axis
AXES = 4  # with more channels, the distance from the span of so few axes is one more coordinate


class CodeOrder(NamedTuple):
    """A binary tree over the codes of each head. All leaves are full except for the last, and have PARTS parts."""

    leaf: int  # codes of a leaf, which is a step of the search
    codes: Tensor  # [H, L·leaf] int32: the codes in the order of the leaves; K for padding
    axes: Tensor  # [H, COORDINATES, D] float32: orthonormal, zero beyond `axes_of(D)`
    split_axes: Tensor  # [H, M] int32: the coordinate that each inner node splits, breadth-first; M + 1 = 2ˡ
    planes: Tensor  # [H, M] float64: where the right subtree begins, between two codes; +inf if it is empty

    @property
    def leaves(self) -> int:
        """L."""
        return self.codes.shape[1] // self.leaf


# Measured searches that are faster with an order; see tuning.py.
orders: dict[Search, CodeOrder] = {}


def leaf_of(full: Tiles, cut: Layout) -> int:
    """Return the codes of a leaf, from the tiles of the search of all codes.

    Fewer would let more leaves be skipped, but cost as many more instructions per code: the state of the minima is
    updated once a step. More are limited by registers.
    """
    return full.block_k if cut.resident else full.block_k // 2


def axes_of(d: int) -> int:
    """Return the number of axes for vectors of `d` channels."""
    return d if d <= FEW_CHANNELS else AXES


@torch.no_grad()
def build_order(codebook: Tensor, leaf: int) -> CodeOrder:
    """Return the order of the codes [H, K, D] in leaves of `leaf` codes, a power of two ≥ PARTS.

    Codes that are not finite are placed like the mean code.
    """
    heads, size, d = codebook.shape
    codes = codebook.double()
    codes = codes.where(codes.isfinite().all(-1, keepdim=True), torch.nan)
    centred = (codes - codes.nanmean(1, keepdim=True)).nan_to_num(0.0)
    axes = codebook.new_zeros((heads, COORDINATES, d), dtype=torch.float32)
    # Largest variances first; a scale of one, so that no square overflows or vanishes.
    scaled = centred / centred.abs().amax((1, 2), keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    _, vectors = torch.linalg.eigh(scaled.mT @ scaled)
    axes[:, : axes_of(d)] = vectors.mT.flip(1)[:, : axes_of(d)]
    slots = leaf << (triton.cdiv(size, leaf) - 1).bit_length()
    order = torch.arange(slots, device=codebook.device).clamp(max=size).expand(heads, slots)
    order, split_axes, planes = _split(_coordinates(centred, axes), order, leaf // PARTS)
    return CodeOrder(leaf, order[:, : round_up(size, leaf)].int(), axes, split_axes, planes)


def _coordinates(centred: Tensor, axes: Tensor) -> Tensor:
    """The coordinates [H, K, COORDINATES] of centred vectors."""
    projected = centred @ axes.double().mT
    if axes.shape[-1] > FEW_CHANNELS:
        projected[..., AXES] = (centred - projected @ axes.double()).norm(dim=-1)
    return projected


def _split(coordinates: Tensor, order: Tensor, part: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sort the slots [H, S] by all levels of the tree, down to parts of `part` codes; padding comes last.

    Also returns the axes and planes of the inner nodes.
    """
    heads, slots = order.shape
    split_axes, planes = [], []
    padded = torch.cat([coordinates, coordinates.new_full((heads, 1, COORDINATES), torch.nan)], 1)
    for level in range((slots // part).bit_length() - 1):
        nodes = 1 << level
        members = slots // nodes
        values = padded.gather(1, order[..., None].expand(-1, -1, COORDINATES))
        values = values.view(heads, nodes, members, COORDINATES)
        deviation = values - values.nanmean(2, keepdim=True)
        axis = deviation.square().nansum(2).argmax(-1, keepdim=True)
        keys = values.gather(3, axis[:, :, None].expand(-1, -1, members, -1))[..., 0].nan_to_num(torch.inf)
        keys, places = keys.sort(dim=-1, stable=True)
        order = order.view(heads, nodes, members).gather(2, places).view(heads, slots)
        split_axes.append(axis[..., 0].int())
        planes.append(keys[..., members // 2 - 1 : members // 2 + 1].mean(-1))
    none = coordinates.new_empty((heads, 0))
    return order, torch.cat([none.int(), *split_axes], 1), torch.cat([none, *planes], 1)
