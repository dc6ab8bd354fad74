"""What a command says at its end."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from quantizers.cli.assigning import Assigned
from quantizers.cli.picture import percent
from quantizers.core.base import Quantizer
from quantizers.fitting import CodebookUse, FitReport

NAMED = 10  # rows that are listed


def usage_table(codebooks: Iterable[CodebookUse]) -> Table:
    """The use of each codebook."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    for heading in ("level", "codes", "used", "perplexity", "entropy, bits"):
        table.add_column(heading, justify="right")
    for level, use in enumerate(codebooks, 1):
        used = f"{use.used:,} ({use.used / use.size:.0%})"
        table.add_row(f"{level}", f"{use.size:,}", used, f"{use.perplexity:,.1f}", f"{use.entropy:.2f}")
    return table


def lines(report: FitReport, quantizer: Quantizer, assigned: Assigned, collisions: str) -> list[str]:
    """The result in sentences."""
    said = [
        f"{report.count:,} vectors of {quantizer.dim} channels in {report.seconds:.1f} s",
        f"error: {percent(report.relative_error)} of the variance (inertia {report.inertia:.5g}, variance "
        f"{report.variance:.5g})",
        f"{bits(quantizer):.4g} bits per vector",
    ]
    if assigned.before is not None and assigned.after is not None:
        said.append(
            f"collisions: {percent(assigned.before)} of the items as encoded, {percent(assigned.after)} after "
            f"{collisions}"
        )
    return [*said, *skipped(report)]


def skipped(report: FitReport) -> list[str]:
    """A sentence on the rows that are not finite, if there are any."""
    if not report.skipped:
        return []
    rows = first_names(report.skipped_rows, report.skipped)
    if report.skipped == 1:
        return [f"1 row is not finite and has no code: {rows}"]
    return [f"{report.skipped:,} rows are not finite and have no code: {rows}"]


def first_names(names: Sequence[object], count: int | None = None) -> str:
    """The first names of `count`, and how many more there are."""
    first = names[:NAMED]
    left = (len(names) if count is None else count) - len(first)
    return ", ".join(map(str, first)) + (f" and {left:,} more" if left else "")


def bits(quantizer: Quantizer) -> float:
    """Bits that a vector's indices take without entropy coding."""
    return sum(math.log2(size) for size in quantizer.codebook_sizes)


def say(console: Console, said: Iterable[str]) -> None:
    """Print lines as they are."""
    for line in said:
        console.print(line, markup=False)


def say_files(console: Console, folder: Path, names: Iterable[str]) -> None:
    """Print which files a folder got."""
    console.print(f"In {folder}: {', '.join(sorted(names))}", markup=False)
