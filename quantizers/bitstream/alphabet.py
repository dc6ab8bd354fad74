"""Which codes there are: the sizes of the codebooks, and the levels of those that are grids."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from quantizers.composite.composed import ComposedQuantizer
from quantizers.composite.multiscale import MultiScaleQuantizer
from quantizers.composite.pyramid import count_cells, full_size, pyramid_sizes
from quantizers.core.arguments.checks import check_at_least, check_integers
from quantizers.core.base import Quantizer
from quantizers.core.output import NO_CODE
from quantizers.scalar.grid import GridQuantizer

LARGEST_LEVEL = 2**24  # entries of a table


class Section(NamedTuple):
    """Columns of indices that have one codebook: `width` of them.

    The index is Σ digit_i · Π_{j<i} levels_j; a codebook that is no grid has one digit.
    """

    levels: tuple[int, ...]
    width: int = 1

    @property
    def size(self) -> int:
        """How many codes there are."""
        return math.prod(self.levels)


@dataclass(frozen=True)
class Alphabet:
    """The codes that indices may have: of one codebook, or of several on the last axis.

    `codes`, `grid`, `stages` and `of` make one.

    Args:
        sections: the columns of the last axis in their order; where `composed` is false a single one, for all.
        composed: whether the last axis is that of codebooks.

    Raises: ValueError for no section, levels outside [1, 2²⁴], more than 2⁶³ codes or a width below 1.
    """

    sections: tuple[Section, ...]
    composed: bool

    def __post_init__(self) -> None:
        if not self.sections or (not self.composed and (len(self.sections) > 1 or self.sections[0].width != 1)):
            raise ValueError(f"sections are {self.sections}, expected at least one, and one where not composed")
        for levels, width in self.sections:
            check_at_least("a width", width, 1)
            if not levels:
                raise ValueError("levels are empty, expected at least one")
            for level in levels:
                if check_at_least("a level", level, 1) > LARGEST_LEVEL:
                    raise ValueError(f"a codebook or channel has {level} codes, expected at most 2**24")
            if math.prod(levels) > 2**63:
                raise ValueError(f"levels {levels} give more than 2**63 codes, int64's range")

    @classmethod
    def codes(cls, codebook_size: int) -> "Alphabet":
        """Of one codebook of K codes, 1 ≤ K ≤ 2²⁴: indices [...]."""
        return cls.grid([codebook_size])

    @classmethod
    def grid(cls, levels: Sequence[int]) -> "Alphabet":
        """Of one implicit codebook of L_i levels in channel i, as FSQ's: indices [...], coded by their digits."""
        return cls((Section(tuple(levels)),), False)

    @classmethod
    def stages(cls, parts: "Sequence[Alphabet | int]", widths: Sequence[int] | None = None) -> "Alphabet":
        """Of several codebooks: indices [..., Σ widths], `widths` columns of each part, by default one.

        Args: parts: K, or an alphabet, for each.
        """
        alphabets = [cls.codes(part) if isinstance(part, int) else part for part in parts]
        widths = [1] * len(alphabets) if widths is None else widths
        if len(widths) != len(alphabets):
            raise ValueError(f"there are {len(widths)} widths and {len(alphabets)} parts, expected as many")
        pairs = zip(alphabets, widths, strict=True)
        return cls(tuple(Section(s.levels, s.width * width) for part, width in pairs for s in part.sections), True)

    @classmethod
    def of(cls, quantizer: Quantizer, columns: int | None = None) -> "Alphabet":
        """That of a quantizer's indices.

        Args: columns: of the last axis, if it has several codebooks: fewer than all of a residual quantizer's. Of
            a MultiScaleQuantizer its tokens [..., L], of maps whose axes are equal; for others `stages`, with
            widths.

        Raises: ValueError for a quantizer without codes, or columns that it cannot have.
        """
        if isinstance(quantizer, MultiScaleQuantizer):
            if columns is None:
                raise ValueError("columns is None, expected the number of tokens of a MultiScaleQuantizer")
            maps = pyramid_sizes(full_size(columns, quantizer.axes, quantizer.scales), quantizer.scales)
            return cls.stages(
                [cls.of(part) for part in quantizer.components], [count_cells(size) for size in maps]
            )
        if quantizer.codebook_size < 1:
            raise ValueError(f"quantizer is {type(quantizer).__name__}, which has no codes")
        if isinstance(quantizer, GridQuantizer):
            return cls.grid(quantizer.level_counts)
        if not quantizer.composed:
            return cls.codes(quantizer.codebook_size)
        if columns is not None:
            quantizer._check_columns(torch.empty(0, columns, dtype=torch.int64))
        if isinstance(quantizer, ComposedQuantizer):
            whole = cls.stages([cls.of(part) for part in quantizer.components])
        else:
            whole = cls.stages([quantizer.codebook_size] * quantizer.num_codebooks)
        return whole if columns is None else cls(whole.sections[:columns], True)

    @property
    def width(self) -> int:
        """Columns of indices: those of the last axis, or 1."""
        return sum(section.width for section in self.sections)

    @property
    def channels(self) -> list[int]:
        """L of each digit of each section: what has a distribution of its own."""
        return [level for section in self.sections for level in section.levels]

    def check_shape(self, shape: Sequence[int]) -> None:
        """Raises: ValueError where the last axis is not that of the codebooks."""
        if self.composed and (not shape or shape[-1] != self.width):
            raise ValueError(
                f"indices have shape {tuple(shape)}, expected {self.width} codebooks on the last axis"
            )

    def check(self, indices: Tensor) -> None:
        """Raises: TypeError for indices that are not integers, ValueError for a shape that does not fit,
        IndexError for an index outside [−1, K) of its codebook."""
        check_integers("indices have", indices)
        self.check_shape(indices.shape)
        indices = indices.long()
        columns = torch.split(indices, [s.width for s in self.sections], -1) if self.composed else [indices]
        for section, column in zip(self.sections, columns, strict=True):
            if column.numel() and (column.min() < NO_CODE or column.max() > section.size - 1):
                least, most = int(column.min()), int(column.max())
                raise IndexError(f"indices are {least} to {most}, expected −1 to {section.size - 1}")


def resolve_alphabet(alphabet: Alphabet | Quantizer | int, indices: Tensor) -> Alphabet:
    """An alphabet that indices [...] fit, from what a user may pass for one.

    Raises: TypeError for what is none, and as `Alphabet.check` does.
    """
    if not isinstance(indices, Tensor):
        raise TypeError(f"indices are a {type(indices).__name__}, expected a tensor")
    if isinstance(alphabet, Quantizer):
        columns = indices.shape[-1] if alphabet.composed and indices.ndim else None
        alphabet = Alphabet.of(alphabet, columns)
    elif isinstance(alphabet, int):
        alphabet = Alphabet.codes(alphabet)
    if not isinstance(alphabet, Alphabet):
        raise TypeError(f"alphabet is {alphabet!r}, expected an Alphabet, a Quantizer or K")
    alphabet.check(indices)
    return alphabet
