"""A rotation of vectors, fitted in alternation with the codes that quantize them."""

import torch
from torch import Tensor
from torch.nn import functional as F

from quantizers.clustering.means import CodeMeans, takes_means
from quantizers.clustering.rotations import balanced_rotation, procrustes_rotation
from quantizers.clustering.seeding import Group
from quantizers.codebooks.multihead import MultiHeadVectorQuantizer
from quantizers.core.base import Quantizer
from quantizers.core.layout import Rows
from quantizers.core.parallel import ProcessGroup, Ranks, of_each_rank, of_first_rank, total
from quantizers.core.row_quantizer import RowQuantizer
from quantizers.kernels.common.vectors import are_finite
from quantizers.kernels.common.wide import narrowed, wide

ROUNDS = 20  # of means and rotation


def fit_rotation(quantizer: RowQuantizer, z: Tensor, process_group: ProcessGroup) -> Tensor:
    """Find a rotation R for which a quantizer has a small error Σ ‖Rz − q‖² on rotated vectors, and fit its codes.

    `RotatedQuantizer` lists the steps. Every rank must call this, and all get the same R and the same codes.

    Args:
        quantizer: gets its codes for the vectors Rz.
        z: [N, dim] vectors that all count, N ≥ 0.
        process_group: the ranks whose vectors count, as in `initialize_from`.

    Returns: R [dim, dim], in z's dtype.

    Raises: ValueError where there is no vector on any rank; all ranks raise.
    """
    group = Ranks(process_group).group()
    rotation = _first_rotation(quantizer, z, group)
    quantizer.initialize_rows(_rotated(z, rotation), process_group)
    moved = True
    for _ in range(ROUNDS):
        rows = _rotated(z, rotation)
        indices = quantizer.nested_encode(rows)
        moved = _move_to_means(quantizer, rows, indices, group)
        products = _products(z, quantizer.nested_decode(indices), group)
        rotation = _of_first_rank(procrustes_rotation(products), z, group)
    if not moved:
        quantizer.initialize_rows(_rotated(z, rotation), process_group)
    return rotation


def group_widths(quantizer: Quantizer) -> list[int]:
    """The channels of each group that a quantizer treats separately, in order; one group where it treats none so.

    Groups behind a projection are none of the vectors that it gets.
    """
    if isinstance(quantizer, MultiHeadVectorQuantizer) and quantizer.code_dim == quantizer.dim:
        return [quantizer.dim // quantizer.num_codebooks] * quantizer.num_codebooks
    widths = [group.dim for group in quantizer.groups]
    return widths if sum(widths) == quantizer.dim else [quantizer.dim]


def _first_rotation(quantizer: RowQuantizer, z: Tensor, group: Group) -> Tensor:
    """A balanced rotation if there are groups, else the identity."""
    own = wide(z).sum(0)
    count, sums = total(group, own.new_tensor([len(z)]), own)
    if not count:
        raise ValueError("no vector counts, expected at least one vector that is finite and not masked")
    widths = group_widths(quantizer)
    if len(widths) == 1:
        return torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
    centered = wide(z) - sums / count
    return _of_first_rank(balanced_rotation(_products(centered, centered, group), widths), z, group)


def _products(a: Tensor, b: Tensor, group: Group) -> Tensor:
    """Σ_i a_i b_iᵀ over all ranks, [D, D] float64, up to a positive factor, with which no product overflows."""
    a, b = wide(a), wide(b)
    of_a, of_b = of_each_rank(group, torch.stack([_largest(a), _largest(b)])).amax(0)
    return total(group, (a / of_a.where(of_a > 0, 1.0)).T @ (b / of_b.where(of_b > 0, 1.0)))[0]


def _largest(x: Tensor) -> Tensor:
    """The largest magnitude, 0-d; 0 if there is none."""
    return x.abs().amax() if x.numel() else x.new_zeros(())


def _of_first_rank(rotation: Tensor, z: Tensor, group: Group) -> Tensor:
    """The rotation that the first rank found, in z's dtype: processors may round differently."""
    return of_first_rank(group, narrowed(rotation, z.dtype, z.device))


def _rotated(z: Tensor, rotation: Tensor) -> Rows:
    """Rz as rows. Those that overflow do not count."""
    vectors = F.linear(z, rotation)
    valid = are_finite(vectors)
    return Rows(vectors.where(valid[:, None], 0.0), valid, z.shape[:1])


def _move_to_means(quantizer: RowQuantizer, rows: Rows, indices: Tensor, group: Group) -> bool:
    """Move each code to the mean of the rows with its index. Returns: whether the quantizer has such codes."""
    tables: dict[Quantizer, CodeMeans] = {}
    for table, vectors, chosen in quantizer.learned_rows(rows, indices):
        if isinstance(table, Quantizer) and takes_means(table):
            tables.setdefault(table, CodeMeans(table)).add(vectors, chosen)
    for means in tables.values():
        means.complete(group)
        means.place()
    return bool(tables)
