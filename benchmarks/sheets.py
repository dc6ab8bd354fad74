"""Tables in words, for the terminal and for Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table

NOTHING = "-"  # in a cell that has no number


@dataclass(frozen=True)
class Sheet:
    """A table in words: a title, headings, rows of cells in which lines are separated by newlines."""

    title: str
    headings: list[str]
    rows: list[list[str]]


def rich_table(sheet: Sheet) -> Table:
    """On a narrow terminal the headings break, not the numbers."""
    shown = Table(title=sheet.title, title_justify="left", box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    for place, heading in enumerate(sheet.headings):
        broken = heading.replace(" + ", "\n+ ").replace(", ", ",\n").replace("-", "-\n")
        shown.add_column(broken, justify="right" if place else "left", overflow="fold")
    for row in sheet.rows:
        shown.add_row(*row, end_section="\n" in row[-1])
    return shown


def markdown_rows(sheet: Sheet) -> list[str]:
    """A table of Markdown, line by line."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("\n", "<br>") for cell in cells) + " |"

    return [line(sheet.headings), "| --- |" + " ---: |" * (len(sheet.headings) - 1), *map(line, sheet.rows)]
