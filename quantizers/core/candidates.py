"""The k nearest codes of a vector, for quantizers that choose the nearest one."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from quantizers.core.arguments.checks import check_integer
from quantizers.core.code_space import CodeSpace
from quantizers.core.layout import to_rows
from quantizers.core.method_calls import through_forward
from quantizers.core.output import NO_CODE
from quantizers.kernels.common.compat import nan
from quantizers.kernels.common.dispatch import without_autocast
from quantizers.kernels.k_nearest.operation import k_nearest_codes


class Candidates(NamedTuple):
    """The k nearest codes of each vector, the nearest first."""

    indices: Tensor
    """int64, the shape of the quantizer's indices with an axis of k at the end. −1 where x is masked or not
    finite, and at the end where fewer than k codes are finite."""
    squared_distances: Tensor
    """Float32 (float64 for float64 input), the same shape: Σ(z − e)² over the channels of a code, as the search
    compares them. NaN where the index is −1."""


# torch.export writes an output's type under this name.
pytree._register_namedtuple(Candidates, serialized_type_name="quantizers.Candidates")


class CodeCandidates(CodeSpace):
    """The method `candidates`. A subclass that searches for the nearest code defines `_compared`."""

    channel_dim: int
    composed: bool

    def _compared(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """What the search compares for rows z [N, code_dim]: vectors [H, N, D] and codes [H, K, D], where H is 1
        unless `composed`.

        Raises: TypeError for a quantizer that does not search for the nearest code.
        """
        name = type(self).__name__
        if self.composed:
            raise TypeError(
                f"{name} has several codebooks, and no one distance says which of their codes come next; call "
                "candidates on one of its stages instead, with the vectors that this stage receives"
            )
        raise TypeError(
            f"{name} does not choose the nearest code of a codebook, so that it has no next nearest one; call "
            "candidates on a quantizer that does, such as VectorQuantizer"
        )

    @through_forward
    @torch.no_grad()
    def candidates(self, x: Tensor, k: int, mask: Tensor | None = None) -> Candidates:
        """The k nearest codes of each vector, exactly, the nearest first; equal distances in the order of indices.

        The first is the index that `encode` gives. Vectors and codes are compared as `encode` compares them:
        behind the projection, and with distance="cosine" or "angle" on the unit sphere.

        Args:
            x, mask: as for `encode`.
            k: from 1 to codebook_size.

        Returns: indices and squared distances [..., k], where x without its channels is [...]; [..., H, k] for a
            multi-head quantizer.

        Raises: the errors of `encode`; ValueError for another k; TypeError for a quantizer that does not search
            for the nearest code, such as FSQ, and for a composition: call it on a stage.
        """
        k = check_integer("k", k)
        rows = to_rows(x, mask, self.dim, self.channel_dim)
        with without_autocast(x.device):
            projected = self._project_in(rows)
            vectors, codes = self._compared(projected.vectors)
            # [H, N, k] → [N, H, k]
            indices, distances = (found.transpose(0, 1) for found in k_nearest_codes(vectors, codes, k))
        valid = projected.valid[:, None, None]
        found = indices.where(valid, NO_CODE), distances.where(valid, nan(distances))
        shape = (*rows.shape, *indices.shape[1 if self.composed else 2 :])
        return Candidates(*(tensor.reshape(shape) for tensor in found))
