"""The codes that indices may have: the sizes of the codebooks, and the levels of those that are grids."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from quantizers.composite.composed import ComposedQuantizer
from quantizers.core.arguments.checks import check_at_least, check_integers
from quantizers.core.base import Quantizer
from quantizers.core.map_quantizer import MapQuantizer
from quantizers.core.output import NO_CODE
from quantizers.scalar.grid import GridQuantizer

LARGEST_LEVEL = 2**24  # entries of a table


class Section(NamedTuple):
    """Adjacent columns of indices that share one codebook; `width` is their number.

    An index is Σ digit_i · Π_{j<i} levels_j. A codebook that is not a grid has one digit.
    """

    levels: tuple[int, ...]
    width: int = 1

    @property
    def size(self) -> int:
        """The number of codes."""
        return math.prod(self.levels)


@dataclass(frozen=True)
class Alphabet:
    """The codes that indices may have: those of one codebook, or of several codebooks on the last axis.

    Build one with `Alphabet.codes`, `Alphabet.grid`, `Alphabet.codebooks` or `Alphabet.of`.

        >>> Alphabet.codebooks([256, 256, Alphabet.grid([8, 5, 5])]).width
        3

    Args:
        sections: the columns of the last axis in their order. Where `composed` is false, a single section that
            applies to all indices.
        composed: whether the last axis of the indices enumerates codebooks.

    Raises: ValueError for no section, levels outside [1, 2²⁴], more than 2⁶³ codes, or a width below 1.
    """

    sections: tuple[Section, ...]
    composed: bool

    def __post_init__(self) -> None:
        if not self.sections or (not self.composed and (len(self.sections) > 1 or self.sections[0].width != 1)):
            raise ValueError(
                f"sections are {self.sections}, expected at least one section, and exactly one of width 1 for "
                "indices without an axis of codebooks"
            )
        for levels, width in self.sections:
            check_at_least("a width", width, 1)
            if not levels:
                raise ValueError("levels is empty, expected at least one level")
            for level in levels:
                if check_at_least("a level", level, 1) > LARGEST_LEVEL:
                    raise ValueError(f"a codebook or channel has {level} codes, expected at most 2**24")
            if math.prod(levels) > 2**63:
                raise ValueError(f"levels {levels} give more than 2**63 codes, the range of int64")

    @classmethod
    def codes(cls, codebook_size: int) -> "Alphabet":
        """The alphabet of one codebook of K codes, 1 ≤ K ≤ 2²⁴, for indices [...]."""
        return cls.grid([codebook_size])

    @classmethod
    def grid(cls, levels: Sequence[int]) -> "Alphabet":
        """The alphabet of an implicit codebook such as FSQ's, with L_i levels in channel i, for indices [...].

        The digits of an index are coded separately.
        """
        return cls((Section(tuple(levels)),), False)

    @classmethod
    def codebooks(cls, alphabets: "Sequence[Alphabet | int]", widths: Sequence[int] | None = None) -> "Alphabet":
        """The alphabet of several codebooks side by side, for indices [..., Σ widths].

        Args:
            alphabets: for each codebook its size K or its alphabet.
            widths: the number of columns of each codebook; by default one.

        Raises: ValueError where there are not as many widths as alphabets.
        """
        resolved = [cls.codes(alphabet) if isinstance(alphabet, int) else alphabet for alphabet in alphabets]
        widths = [1] * len(resolved) if widths is None else widths
        if len(widths) != len(resolved):
            raise ValueError(f"got {len(widths)} widths for {len(resolved)} alphabets; expected one per alphabet")
        sections = [
            Section(section.levels, section.width * width)
            for alphabet, width in zip(resolved, widths, strict=True)
            for section in alphabet.sections
        ]
        return cls(tuple(sections), True)

    @classmethod
    def of(cls, quantizer: Quantizer, columns: int | None = None) -> "Alphabet":
        """The alphabet of a quantizer's indices.

        Args:
            quantizer: any quantizer that has codes.
            columns: the size of the indices' last axis, for a quantizer with several codebooks; by default one
                column per codebook. A quantizer that is `truncatable` accepts fewer. A quantizer of maps needs
                the number of tokens per map, and is taken to have maps whose axes all have the same size. For
                other maps, use `Alphabet.codebooks` with widths.

        Raises: ValueError for a quantizer without codes, or a number of columns that it cannot have.
        """
        if quantizer.codebook_size < 1:
            raise ValueError(f"quantizer is {type(quantizer).__name__}, which has no codes")
        quantizer = quantizer.evaluated
        if isinstance(quantizer, GridQuantizer):
            return cls.grid(quantizer.level_counts)
        if not quantizer.composed:
            return cls.codes(quantizer.codebook_size)
        each = (
            [cls.of(component) for component in quantizer.components]
            if isinstance(quantizer, ComposedQuantizer)
            else quantizer.codebook_sizes
        )
        if isinstance(quantizer, MapQuantizer):
            if columns is None:
                raise ValueError(f"columns is None, expected the number of tokens of a {type(quantizer).__name__}")
            return cls.codebooks(each, quantizer.tokens_per_codebook(columns))
        whole = cls.codebooks(each)
        if columns is None:
            return whole
        quantizer._check_columns(torch.empty(0, columns, dtype=torch.int64))
        return cls(whole.sections[:columns], True)

    @property
    def width(self) -> int:
        """The number of columns of the indices: the size of their last axis, or 1 for a single codebook."""
        return sum(section.width for section in self.sections)

    @property
    def channels(self) -> list[int]:
        """The number of levels of each digit of each section. Each of these digits has its own distribution."""
        return [level for section in self.sections for level in section.levels]

    def check_shape(self, shape: Sequence[int]) -> None:
        """Raise ValueError where the last axis does not have one entry per column."""
        if self.composed and (not shape or shape[-1] != self.width):
            raise ValueError(
                f"indices have shape {tuple(shape)}, expected {self.width} codebooks on the last axis"
            )

    def check(self, indices: Tensor) -> None:
        """Check that indices fit this alphabet.

        Raises: TypeError for indices that are not integers; ValueError for a shape that does not fit; IndexError
            for an index outside [−1, K) of its codebook.
        """
        check_integers("indices have", indices)
        self.check_shape(indices.shape)
        indices = indices.long()
        columns = torch.split(indices, [s.width for s in self.sections], -1) if self.composed else [indices]
        for section, column in zip(self.sections, columns, strict=True):
            if column.numel() and (column.min() < NO_CODE or column.max() > section.size - 1):
                least, most = int(column.min()), int(column.max())
                raise IndexError(f"indices range from {least} to {most}, expected −1 to {section.size - 1}")


def resolve_alphabet(alphabet: Alphabet | Quantizer | int, indices: Tensor) -> Alphabet:
    """The alphabet of indices [...], given as an alphabet, as the quantizer that chose them, or as K.

    Raises: TypeError for any other alphabet and for indices that are not a tensor; and as `Alphabet.check`.
    """
    if not isinstance(indices, Tensor):
        raise TypeError(f"indices is a {type(indices).__name__}, expected a tensor")
    if isinstance(alphabet, Quantizer):
        columns = indices.shape[-1] if alphabet.composed and indices.ndim else None
        alphabet = Alphabet.of(alphabet, columns)
    elif isinstance(alphabet, int):
        alphabet = Alphabet.codes(alphabet)
    if not isinstance(alphabet, Alphabet):
        raise TypeError(f"alphabet is {alphabet!r}, expected an Alphabet, a Quantizer or K")
    alphabet.check(indices)
    return alphabet
