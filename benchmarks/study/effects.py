"""What an effect consists of: what is trained, which tables show it, and which comparisons decide it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.study.measures import STEPS_TO_VQ, Measure
from benchmarks.training import Recipe


@dataclass(frozen=True)
class Setting:
    """What is trained: a variant of a quantizer, K and D. The rest of the recipe is the same for all."""

    quantizer: str
    codebook_size: int = Recipe.codebook_size
    dim: int = Recipe.dim


@dataclass(frozen=True)
class Column:
    """A heading, and what stands under it in a quantizer's row."""

    heading: str
    measure: Measure
    codebook_size: int = Recipe.codebook_size
    dim: int = Recipe.dim

    def setting(self, quantizer: str) -> Setting:
        """What is trained for the cell in that quantizer's row."""
        return Setting(quantizer, self.codebook_size, self.dim)


@dataclass(frozen=True)
class Table:
    """A title, a row for each quantizer, and columns; `axis` is what varies along them, where one thing does."""

    title: str
    quantizers: Sequence[str]
    columns: Sequence[Column]
    axis: Literal["K", "D"] | None = None

    def settings(self) -> list[Setting]:
        return [column.setting(name) for name in self.quantizers for column in self.columns]

    @property
    def timed(self) -> bool:
        """Whether it shows the steps to an error, the way to which is drawn, too."""
        return any(column.measure == STEPS_TO_VQ for column in self.columns)


@dataclass(frozen=True)
class Comparison:
    """A sentence that holds where, seed by seed, `greater` has more of the measure than `lesser`.

    Where the two have measures of their own, `lesser_measure` is the second one's.
    """

    sentence: str
    measure: Measure
    greater: Setting
    lesser: Setting
    lesser_measure: Measure | None = None


@dataclass(frozen=True)
class Effect:
    """One question of the study.

    key    a letter, as the command line takes it
    claim  what is said, and where
    """

    key: str
    title: str
    claim: str
    tables: Sequence[Table]
    comparisons: Sequence[Comparison]

    def settings(self) -> list[Setting]:
        """All that is trained for it, each once, in order."""
        compared = [setting for each in self.comparisons for setting in (each.greater, each.lesser)]
        shown = [setting for table in self.tables for setting in table.settings()]
        return list(dict.fromkeys([*shown, *compared]))


def against_k(measure: Measure, quantizers: Sequence[str], sizes: Sequence[int]) -> Table:
    """A measure with a column for each K."""
    title = f"{capital(measure.heading)} against K, at D {Recipe.dim}"
    return Table(title, quantizers, [Column(str(size), measure, size) for size in sizes], "K")


def against_d(measure: Measure, quantizers: Sequence[str], dims: Sequence[int]) -> Table:
    """A measure with a column for each D."""
    title = f"{capital(measure.heading)} against D, at K {Recipe.codebook_size}"
    return Table(title, quantizers, [Column(str(dim), measure, dim=dim) for dim in dims], "D")


def capital(heading: str) -> str:
    """With a capital at its start; str.capitalize would write `psnr`."""
    return heading[0].upper() + heading[1:]
