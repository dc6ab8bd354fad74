"""Which IDs begin with given codes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from quantizers.item_ids.groups import group_numbers


class PrefixIndex:
    """Finds the rows of a table of IDs that begin with given codes, by binary search.

    Args: codes: int64 [N, levels].
    """

    def __init__(self, codes: Tensor) -> None:
        self.order = group_numbers(codes).argsort(stable=True)
        self.columns = codes[self.order].T.contiguous()

    def rows(self, prefix: Sequence[int]) -> Tensor:
        """The rows whose IDs begin with these codes, in the lexicographic order of the IDs: int64 [n]."""
        start, stop = self._range(prefix)
        return self.order[start:stop]

    def next_codes(self, prefix: Sequence[int]) -> Tensor:
        """The distinct codes that follow these, ascending: int64 [n]."""
        start, stop = self._range(prefix)
        codes: Tensor = torch.unique_consecutive(self.columns[len(prefix), start:stop])
        return codes

    def _range(self, prefix: Sequence[int]) -> tuple[int, int]:
        start, stop = 0, len(self.order)
        for column, code in zip(self.columns, prefix, strict=False):
            code = min(max(code, -1), 2**62)  # int64, beyond any code
            bounds = torch.searchsorted(column[start:stop], torch.tensor([code, code + 1], device="cpu"))
            start, stop = start + int(bounds[0]), start + int(bounds[1])
        return start, stop
