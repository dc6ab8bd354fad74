"""What it costs to give a vector a code, in float64 and in blocks: for assignments with capacities."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from quantizers.core.arguments.checks import check_tensor
from quantizers.kernels.common.arguments import (
    check_axes,
    check_device,
    check_equal,
    check_floating,
    check_not_empty,
)
from quantizers.kernels.common.wide import wide

BLOCK = 2**20  # elements in the largest block of costs: 8 MiB
LARGEST_EXPONENT = 1000  # of a power of two whose inverse is finite, too


@dataclass(frozen=True)
class Costs:
    """Squared distances between vectors [N, D] and codes [K, D], both multiplied by one power of two.

    Shifted by the first code, which costs float32 values no rounding: distances that are equal on a grid
    stay equal. The power of two brings the largest value to about 1, so that squares fit float64 at
    any scale.
    """

    x: Tensor  # [N, D], finite, in the dtype of the input; on a device with float64, as all else
    codes: Tensor  # [K, D] float64, shifted and scaled
    norms: Tensor  # [K] float64, their squared norms
    shift: Tensor  # [D] float64, scaled
    factor: float

    @classmethod
    def of(cls, x: Tensor, codebook: Tensor) -> "Costs":
        """The costs of finite vectors [N, D] and finite codes [K, D], K ≥ 1."""
        largest = max(float(codebook.abs().max()), float(x.abs().max()) if x.shape[0] else 0.0)
        exponent = max(-LARGEST_EXPONENT, min(math.frexp(largest)[1], LARGEST_EXPONENT))
        scaled = wide(codebook) * 2.0**-exponent
        codes = scaled - scaled[0]
        return cls(x.to(codes.device), codes, codes.square().sum(-1), scaled[0], 2.0**-exponent)

    def rows(self, positions: Tensor) -> Tensor:
        """[n, D] float64: the vectors at some positions [n], shifted and scaled like the codes."""
        return self.x[positions].double() * self.factor - self.shift

    def at(self, positions: Tensor, codes: Tensor | None = None) -> Tensor:
        """[n, K] float64: ‖x − e‖² − ‖x‖² of the vectors at some positions [n], for all codes or those listed.

        A constant of a vector, here ‖x‖², changes no assignment that gives every vector a code.
        """
        keys, norms = (self.codes, self.norms) if codes is None else (self.codes[codes], self.norms[codes])
        return torch.addmm(norms, self.rows(positions), keys.T, alpha=-2)

    def blocks(self, positions: Tensor) -> Iterator[Tensor]:
        """The positions [n] in consecutive parts whose costs have at most `BLOCK` elements (one row at least)."""
        return iter(torch.split(positions, max(1, BLOCK // max(self.codes.shape))))

    def squared_distances(self, indices: Tensor) -> Tensor:
        """[N] float64: ‖x − e‖² of every vector and the code of its index, in scaled units."""
        everywhere = torch.arange(self.x.shape[0], device=self.x.device)
        parts = [
            (self.rows(part) - self.codes[indices[part]]).square().sum(-1) for part in self.blocks(everywhere)
        ]
        return torch.cat(parts) if parts else self.norms[:0]


def check_vectors(x: Tensor, codebook: Tensor) -> None:
    """Check x [N, D] and codebook [K, D]: floating dtypes, one device, K ≥ 1, D ≥ 1."""
    check_axes("x", check_tensor("x", x), "[N, D]")
    check_axes("codebook", check_tensor("codebook", codebook), "[K, D]")
    check_floating(x=x, codebook=codebook)
    check_device(x=x, codebook=codebook)
    check_equal("channels", "x", x.shape[1], "codebook", codebook.shape[1])
    check_not_empty("codebook", codebook)
