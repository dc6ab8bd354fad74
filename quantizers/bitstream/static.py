"""Static models: one distribution for each digit of each codebook, from counts."""

import abc
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from quantizers.bitstream.alphabet import Alphabet, Section, resolve_alphabet
from quantizers.bitstream.coder import LARGEST_SUM, Integers, Reader, Writer
from quantizers.bitstream.model import Model, put_present, take_present
from quantizers.bitstream.table import put_table, round_counts, take_table
from quantizers.core.arguments.checks import check_integers
from quantizers.core.base import Quantizer
from quantizers.core.output import NO_CODE


class StaticModel(Model):
    """Writes the sections one after the other: first which indices are −1, then the digits of the others.

    The digits are written channel by channel. A channel is one digit of a section, and has `level` possible
    values.
    """

    @abc.abstractmethod
    def _put_channel(self, writer: Writer, digits: Integers, channel: int, level: int) -> None:
        """Write digits [n] in [0, level), n ≥ 1, of a channel of the alphabet."""

    @abc.abstractmethod
    def _take_channel(self, reader: Reader, count: int, channel: int, level: int) -> Integers:
        """Read `count` digits that `_put_channel` wrote."""

    def _check(self, alphabet: Alphabet) -> None:
        """Raise ValueError where the model does not fit the alphabet."""

    def put(self, writer: Writer, indices: Integers, alphabet: Alphabet) -> None:
        """See Model.put."""
        self._check(alphabet)
        channel = 0
        for section, columns in zip(alphabet.sections, split_sections(indices, alphabet), strict=True):
            present = put_present(writer, columns)
            for digits, level in zip(split_digits(present, section), section.levels, strict=True):
                if level > 1 and len(digits):
                    self._put_channel(writer, digits, channel, level)
                channel += 1

    def take(self, reader: Reader, shape: Sequence[int], alphabet: Alphabet) -> Integers:
        """See Model.take."""
        self._check(alphabet)
        rows = int(np.prod(shape, dtype=np.int64)) // alphabet.width
        channel, sections = 0, []
        for section in alphabet.sections:
            present = take_present(reader, rows * section.width)
            found, weight = np.zeros(int(present.sum()), dtype=np.int64), 1
            for level in section.levels:
                if level > 1 and len(found):
                    found += self._take_channel(reader, len(found), channel, level) * weight
                channel, weight = channel + 1, weight * level
            columns = np.full(len(present), NO_CODE, dtype=np.int64)
            columns[present] = found
            sections.append(columns.reshape(rows, section.width))
        return np.concatenate(sections, -1).reshape(shape)


class OwnCounts(StaticModel):
    """A model with the counts of the compressed indices, which the stream contains: a decoder needs nothing else.

    For each channel, the stream contains a table (`table.py`), or all codes count as equally likely, whichever is
    shorter. With few indices and many codes, an index costs about log₂ K bits.
    """

    number: ClassVar[int] = 1

    def _put_channel(self, writer: Writer, digits: Integers, channel: int, level: int) -> None:
        counts = np.bincount(digits, minlength=level)
        table = round_counts(counts)
        has_table = _table_bits(counts, table) < len(digits) * np.log2(level)
        writer.put_uniform(np.array([int(has_table)]), 2)
        if not has_table:
            return writer.put(digits, np.ones(level, dtype=np.int64))
        put_table(writer, table)
        ranks = (table > 0).cumsum() - 1
        return writer.put(ranks[digits], table[table > 0])

    def _take_channel(self, reader: Reader, count: int, channel: int, level: int) -> Integers:
        if not reader.take_uniform(1, 2)[0]:
            return reader.take(count, np.ones(level, dtype=np.int64))
        table = take_table(reader, level)
        occurring = np.flatnonzero(table)
        return occurring[reader.take(count, table[occurring])]


class Counts(StaticModel):
    """A model with counts that both sides have, such as those of a training set.

    A code with a count of 0 can still be sent; it costs 24 bits (48 above 4,096 codes). The counts of several
    batches can be added: `Counts.of(a, quantizer) + Counts.of(b, quantizer)`.

        >>> import torch
        >>> from quantizers.bitstream import Counts, compress, decompress
        >>> counts = Counts.of(torch.tensor([0, 0, 0, 1]), 2)
        >>> decompress(compress(torch.tensor([1, 0]), 2, counts), counts)
        tensor([1, 0])

    Args:
        tables: integer counts [L], at least 0, for each digit of each codebook in their order. A single codebook
            that is not a grid has one table, as `metrics.code_counts` returns it.

    Raises: TypeError for a table that does not contain integers; ValueError for a table that is not [L], has a
        negative count, or has a sum above 2³⁸.
    """

    number: ClassVar[int] = 2

    def __init__(self, tables: Sequence[Tensor]) -> None:
        self.tables = [_check_table(table) for table in tables]

    @classmethod
    def of(cls, indices: Tensor, alphabet: Alphabet | Quantizer | int) -> "Counts":
        """Count indices [...]; −1 does not count. Raises: as `compress`."""
        resolved = resolve_alphabet(alphabet, indices)
        tables = []
        for section, columns in zip(
            resolved.sections, split_sections(indices.cpu().long().numpy(), resolved), strict=True
        ):
            present = columns[columns != NO_CODE]
            digits = zip(split_digits(present, section), section.levels, strict=True)
            tables += [torch.from_numpy(np.bincount(digit, minlength=level)) for digit, level in digits]
        return cls(tables)

    def __add__(self, other: "Counts") -> "Counts":
        """The counts of both together. Raises: ValueError for counts of different alphabets."""
        if self._sizes != other._sizes:
            raise ValueError(f"the counts are for {self._sizes} and {other._sizes} codes, expected the same sizes")
        return Counts([a + b for a, b in zip(self.tables, other.tables, strict=True)])

    @property
    def _sizes(self) -> list[int]:
        return [len(table) for table in self.tables]

    def _check(self, alphabet: Alphabet) -> None:
        if self._sizes != alphabet.channels:
            raise ValueError(f"the counts are for {self._sizes} codes, expected counts for {alphabet.channels}")

    def _put_channel(self, writer: Writer, digits: Integers, channel: int, level: int) -> None:
        writer.put(digits, self.tables[channel].numpy())

    def _take_channel(self, reader: Reader, count: int, channel: int, level: int) -> Integers:
        return reader.take(count, self.tables[channel].numpy())


def split_sections(indices: Integers, alphabet: Alphabet) -> list[Integers]:
    """Split indices [...] into one vector per section."""
    ends = np.cumsum([section.width for section in alphabet.sections])[:-1]
    return [columns.reshape(-1) for columns in np.split(indices.reshape(-1, alphabet.width), ends, -1)]


def split_digits(indices: Integers, section: Section) -> list[Integers]:
    """The digits of indices [n] ≥ 0, one vector [n] per level."""
    digits = []
    for level in section.levels:
        indices, digit = np.divmod(indices, level)
        digits.append(digit)
    return digits


def _table_bits(counts: Integers, table: Integers) -> float:
    """The approximate number of bits of a table, and of the symbols coded with it."""
    scratch = Writer()
    put_table(scratch, table)
    occurs = table > 0
    share = table[occurs] / table.sum()
    return scratch.bits - float(counts[occurs] @ np.log2(share))


def _check_table(table: Tensor) -> Tensor:
    check_integers("a table of counts has", table)
    if table.ndim != 1 or not len(table):
        raise ValueError(f"a table of counts has shape {tuple(table.shape)}, expected [L], L ≥ 1")
    table = table.detach().cpu().long()
    if table.min() < 0 or table.double().sum() > LARGEST_SUM:
        raise ValueError(
            f"a table of counts has values from {int(table.min())} to {int(table.max())}, expected counts of at "
            "least 0 whose sum is at most 2**38"
        )
    return table
