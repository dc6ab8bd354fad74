"""The description of an effect: what is trained, which tables show it, and which comparisons decide it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.study.measures import STEPS_TO_VQ, Measure
from benchmarks.training import Recipe


@dataclass(frozen=True)
class Setting:
    """A variant of a quantizer with K and D. The rest of the recipe is the same for all."""

    quantizer: str
    codebook_size: int = Recipe.codebook_size
    dim: int = Recipe.dim


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading and the measure in its cells."""

    heading: str
    measure: Measure
    codebook_size: int = Recipe.codebook_size
    dim: int = Recipe.dim

    def setting(self, quantizer: str) -> Setting:
        """Return the setting of the cell in that quantizer's row."""
        return Setting(quantizer, self.codebook_size, self.dim)


@dataclass(frozen=True)
class Table:
    """A table with a row per quantizer. `axis` is the quantity that varies along the columns, if there is just
    one.
    """

    title: str
    quantizers: Sequence[str]
    columns: Sequence[Column]
    axis: Literal["K", "D"] | None = None

    def settings(self) -> list[Setting]:
        return [column.setting(name) for name in self.quantizers for column in self.columns]

    @property
    def timed(self) -> bool:
        """Whether the table shows the steps to an error. The error curves are then plotted as well."""
        return any(column.measure == STEPS_TO_VQ for column in self.columns)


@dataclass(frozen=True)
class Comparison:
    """A sentence that holds in a seed if `greater` has a larger value of the measure than `lesser`.

    If the two sides use different measures, `lesser_measure` is the measure of the lesser side.
    """

    sentence: str
    measure: Measure
    greater: Setting
    lesser: Setting
    lesser_measure: Measure | None = None


@dataclass(frozen=True)
class Effect:
    """One question of the study.

    key    a letter, as on the command line
    claim  the claim and its source
    """

    key: str
    title: str
    claim: str
    tables: Sequence[Table]
    comparisons: Sequence[Comparison]

    def settings(self) -> list[Setting]:
        """Return all settings to train, without duplicates, in order."""
        compared = [setting for each in self.comparisons for setting in (each.greater, each.lesser)]
        shown = [setting for table in self.tables for setting in table.settings()]
        return list(dict.fromkeys([*shown, *compared]))


def against_k(measure: Measure, quantizers: Sequence[str], sizes: Sequence[int]) -> Table:
    """Return a table of a measure with a column for each K."""
    title = f"{capital(measure.heading)} against K, at D {Recipe.dim}"
    return Table(title, quantizers, [Column(str(size), measure, size) for size in sizes], "K")


def against_d(measure: Measure, quantizers: Sequence[str], dims: Sequence[int]) -> Table:
    """Return a table of a measure with a column for each D."""
    title = f"{capital(measure.heading)} against D, at K {Recipe.codebook_size}"
    return Table(title, quantizers, [Column(str(dim), measure, dim=dim) for dim in dims], "D")


def capital(heading: str) -> str:
    """Capitalize the first letter only. `str.capitalize` would turn PSNR into Psnr."""
    return heading[0].upper() + heading[1:]
