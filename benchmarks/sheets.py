"""Tables as text, for the terminal and for Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table

NOTHING = "-"  # the cell of a missing number


@dataclass(frozen=True)
class Sheet:
    """A table as text: title, headings, and rows of cells. Newlines separate the lines of a cell."""

    title: str
    headings: list[str]
    rows: list[list[str]]


def rich_table(sheet: Sheet) -> Table:
    """Return a table for the terminal. On a narrow one the headings wrap, not the numbers."""
    shown = Table(title=sheet.title, title_justify="left", box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    for column, heading in enumerate(sheet.headings):
        broken = heading.replace(" + ", "\n+ ").replace(", ", ",\n").replace("-", "-\n")
        shown.add_column(broken, justify="right" if column else "left", overflow="fold")
    for row in sheet.rows:
        shown.add_row(*row, end_section="\n" in row[-1])
    return shown


def markdown_rows(sheet: Sheet) -> list[str]:
    """Return the lines of the table in Markdown."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("\n", "<br>") for cell in cells) + " |"

    return [line(sheet.headings), "| --- |" + " ---: |" * (len(sheet.headings) - 1), *map(line, sheet.rows)]
