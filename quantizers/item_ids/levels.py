"""The codes of one level of an ID, given those before it."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from quantizers.codebooks.multihead import MultiHeadVectorQuantizer
from quantizers.composite.grouped import GroupedQuantizer
from quantizers.composite.residual import ResidualQuantizer
from quantizers.composite.rotated import RotatedQuantizer
from quantizers.core.arguments.checks import shown
from quantizers.core.base import Quantizer
from quantizers.core.output import NO_CODE
from quantizers.core.row_quantizer import RowQuantizer
from quantizers.fitting.places import device_of


class Search(NamedTuple):
    """Items whose next code is one of the same vectors."""

    items: Tensor
    """Positions among the items that were asked for, int64 [n]."""
    targets: Tensor
    """What the codes have to approximate, [n, D]."""
    codebook: Tensor
    """The codes, [K, D]."""


class Levels:
    """A fitted quantizer whose codebooks are the levels of an ID.

    The distance of an item to a code is that of its embedding to what `decode` gives for the codes up to this one.

    Raises: TypeError for something other than a quantizer of single vectors with codes.
    """

    def __init__(self, quantizer: Quantizer) -> None:
        self.quantizer = check_quantizer(quantizer)
        self.sizes = quantizer.codebook_sizes
        self.device = device_of(quantizer)
        self._adds_up = adds_up(quantizer)

    def decode(self, codes: Tensor) -> Tensor:
        """What the first codes [n, up to all levels] stand for: [n, D]."""
        codes = nn.functional.pad(codes, (0, len(self.sizes) - codes.shape[1]), value=NO_CODE).to(self.device)
        return self.quantizer.decode(codes if self.quantizer.composed else codes[:, 0])

    def searches(self, x: Tensor, prefixes: Tensor, groups: Tensor) -> Iterator[Search]:
        """State the choice of the next code as a search among fixed vectors.

        If the values of the codebooks add up, one search has all items. Otherwise the next codes depend on the
        prefix, and each group has a search of its own.

        Args:
            x: embeddings [n, D].
            prefixes: the codes so far, int64 [n, level].
            groups: the number of each prefix, int64 [n], from 0 on.
        """
        level = prefixes.shape[1]
        codes = torch.arange(self.sizes[level])[:, None]
        if self._adds_up:
            before = self.decode(prefixes) if level else torch.zeros((), device=self.device)
            alone = nn.functional.pad(codes, (level, 0), value=NO_CODE)
            yield Search(torch.arange(len(x)), x.to(self.device) - before, self.decode(alone))
            return
        for items in torch.split(groups.argsort(stable=True), groups.bincount().tolist()):
            prefix = prefixes[items[:1]].expand(len(codes), -1)
            yield Search(items, x[items].to(self.device), self.decode(torch.cat([prefix, codes], 1)))


def check_quantizer(quantizer: object) -> RowQuantizer:
    """Return `quantizer` if its codes can be IDs. Raises: TypeError with a sentence that says why not."""
    if not isinstance(quantizer, Quantizer):
        raise TypeError(f"quantizer is {shown(quantizer)}, expected a fitted Quantizer; semantic_ids fits one")
    if not isinstance(quantizer, RowQuantizer) or not quantizer.per_vector or quantizer.codebook_size < 1:
        raise TypeError(
            f"quantizer is {type(quantizer).__name__}, expected one with codes for single vectors, such as "
            "quantizers.create('residual', ...)"
        )
    return quantizer


def adds_up(quantizer: Quantizer) -> bool:
    """Whether the value of several indices is known to be the sum of what each stands for by itself."""
    if isinstance(quantizer, RotatedQuantizer):
        return adds_up(quantizer.quantizer)
    if not quantizer.composed:
        return True
    if not isinstance(quantizer.project_out, nn.Identity):
        return False  # its bias counts once
    if isinstance(quantizer, ResidualQuantizer | GroupedQuantizer):
        return all(adds_up(component) for component in quantizer.components)
    return isinstance(quantizer, MultiHeadVectorQuantizer)
