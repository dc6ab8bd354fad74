"""A codebook as k-means sees it: codes to place, and the space in which vectors are compared with them."""

from typing import NamedTuple

import torch
from torch import Tensor

from quantizers.clustering.kmeans import codes_of_mean_length
from quantizers.codebooks.multihead import MultiHeadVectorQuantizer
from quantizers.codebooks.nearest import NearestCodeQuantizer
from quantizers.composite.composed import all_valid
from quantizers.core.base import Quantizer
from quantizers.core.distance import Distance
from quantizers.kernels.common.vectors import normalize


class Table(NamedTuple):
    """The codes of a quantizer, or of one head of a multi-head quantizer."""

    quantizer: Quantizer
    head: int | None = None

    @property
    def distance(self) -> Distance:
        """How the quantizer compares vectors and codes."""
        return self.quantizer.distance if isinstance(self.quantizer, NearestCodeQuantizer) else "euclidean"

    @property
    def spherical(self) -> bool:
        """Whether directions are compared."""
        return self.distance != "euclidean"

    @property
    def size(self) -> int:
        """K."""
        return self.quantizer.codebook_size

    @property
    def fixed(self) -> Tensor | None:
        """Which codes stay, bool [K]; None if none does."""
        return self.quantizer.frozen_codes

    @torch.no_grad()
    def vectors(self, x: Tensor) -> Tensor:
        """Vectors [N, quantizer.dim] as the search compares them, [N, code_dim]; NaN where none can be found."""
        return self.compared(self.projected(x))

    @torch.no_grad()
    def projected(self, x: Tensor) -> Tensor:
        """Vectors [N, quantizer.dim] in code space, [N, code_dim]; NaN where a projection overflows."""
        rows = self.quantizer._project_in(all_valid(x))
        z = rows.vectors if rows.vectors is x else rows.vectors.where(rows.valid[:, None], torch.nan)
        return z if self.head is None else z.chunk(self.quantizer.num_codebooks, -1)[self.head].contiguous()

    def compared(self, z: Tensor) -> Tensor:
        """Vectors in code space as the search compares them: of unit norm where it compares directions."""
        return normalize(z).where((z != 0).any(-1, keepdim=True), torch.nan) if self.spherical else z

    @torch.no_grad()
    def codes(self) -> Tensor:
        """The present codes as the search compares them, [K, code_dim]."""
        codes: Tensor = self.quantizer.codebook.detach()
        codes = codes if self.head is None else codes[self.head]
        return normalize(codes) if self.spherical else codes.clone()

    @torch.no_grad()
    def scaled(self, codes: Tensor, x: Tensor) -> Tensor:
        """Directions [K, code_dim] with the mean length of their vectors, if the codes have a length of their own.

        Args: x: [N, quantizer.dim], by whose lengths they are scaled.
        """
        return codes_of_mean_length(self.projected(x), codes) if self.distance == "angle" else codes

    @torch.no_grad()
    def place(self, codes: Tensor) -> None:
        """Set the codes [K, code_dim]; those that are fixed stay."""
        if self.head is not None:
            heads = self.quantizer.codebook.detach().clone()
            heads[self.head] = codes
            self.quantizer.set_codebook(heads)  # type: ignore[operator]
        elif self.fixed is None:
            self.quantizer.set_codebook(codes)  # type: ignore[operator]
        else:
            free = (~self.fixed).nonzero().flatten()
            self.quantizer.place_codes(free, codes[free])


def tables_in(quantizer: Quantizer) -> list[Table]:
    """The tables of a quantizer without components; none if it has no codes that can be placed one by one."""
    if isinstance(quantizer, MultiHeadVectorQuantizer):
        return [Table(quantizer, head) for head in range(quantizer.num_codebooks)]
    return [Table(quantizer)] if quantizer.has_table else []
