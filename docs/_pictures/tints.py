"""Soft colours for cells, different for neighbours."""

import torch
from torch import Tensor

TINTS = torch.tensor(
    [[222, 234, 246], [252, 240, 214], [226, 240, 222], [246, 226, 232], [234, 230, 246], [238, 238, 232]],
    dtype=torch.uint8,
)
"""Blue, sand, green, rose, violet and grey, all light: arrows and dots stand out from them."""
WHITE = torch.tensor([255, 255, 255], dtype=torch.uint8)


def tinted(cells: Tensor) -> Tensor:
    """Cells [rows, columns] as colours, uint8 [rows, columns, 3], with white lines between them."""
    colours = TINTS[assign_tints(cells)][cells]
    colours[edges(cells)] = WHITE
    return colours


def edges(cells: Tensor) -> Tensor:
    """Bool [rows, columns]: whether the pixel to the right or below belongs to another cell."""
    edge = torch.zeros_like(cells, dtype=torch.bool)
    edge[:, :-1] |= cells[:, 1:] != cells[:, :-1]
    edge[:-1] |= cells[1:] != cells[:-1]
    return edge


def assign_tints(cells: Tensor) -> Tensor:
    """A tint for each cell [M]: in the order of the cells, the least used one that no neighbour has."""
    number = int(cells.max()) + 1
    pairs = torch.cat(
        [
            torch.stack([cells[:, 1:], cells[:, :-1]], -1).reshape(-1, 2),
            torch.stack([cells[1:], cells[:-1]], -1).reshape(-1, 2),
        ]
    )
    pairs = pairs[pairs[:, 0] != pairs[:, 1]].unique(dim=0)
    touching = torch.zeros(number, number, dtype=torch.bool)
    touching[pairs[:, 0], pairs[:, 1]] = touching[pairs[:, 1], pairs[:, 0]] = True
    tints = torch.full((number,), -1)
    for cell in range(number):
        taken = {int(tint) for tint in tints[touching[cell]]}
        use = [int((tints == tint).sum()) + (1000 if tint in taken else 0) for tint in range(len(TINTS))]
        tints[cell] = use.index(min(use))
    return tints
