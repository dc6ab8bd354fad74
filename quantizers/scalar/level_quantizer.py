"""Grids that are built from their levels, or from a codebook size."""

import re
from collections.abc import Sequence
from typing import Any

from typing_extensions import Self

from quantizers.core.arguments.checks import Level, Size
from quantizers.core.arguments.forwarding import check_forwarded, forwards
from quantizers.core.arguments.options import checked
from quantizers.scalar.grid import GridQuantizer
from quantizers.scalar.levels import levels_from


class LevelQuantizer(GridQuantizer):
    """A grid whose constructor takes `dim` and `levels`, and further arguments by name."""

    @classmethod
    @forwards()
    @checked
    def from_options(
        cls, dim: Size, codebook_size: int | None = None, levels: Sequence[Level] | None = None, **options: Any
    ) -> Self:
        """Build one from `levels`, or from a codebook size by `levels_for`.

        Args:
            codebook_size: K, for which `levels_for` chooses the levels; instead of `levels`.
            options: further arguments of the constructor.

        Raises: ValueError unless exactly one of levels and codebook_size is given; as the constructor.
        """
        check_forwarded(cls.from_options, options)
        return cls(dim, levels_from(_in_words(cls.__name__), codebook_size, levels), **options)


def _in_words(name: str) -> str:
    """The name of a class as it is registered: "dithered_fsq" for DitheredFSQ."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
