"""The parts of a method's page that are made from the library and its results."""

import re
from collections.abc import Callable
from pathlib import PurePosixPath

import quantizers
from docs._hooks import benchmark_row, options_table, preset_list

PARTS: dict[str, Callable[[str], str]] = {
    "options": options_table.table,
    "benchmark": benchmark_row.table,
    "used by": preset_list.table,
}
_COMMENT = re.compile(r"^<!-- ([\w ]+) -->$", re.MULTILINE)


def filled(markdown: str, page: str) -> str:
    """The Markdown of a method's page with its comments replaced; that of any other page unchanged."""
    path = PurePosixPath(page)
    if path.parent.name != "methods" or path.stem not in quantizers.available():
        return markdown

    def part(found: re.Match[str]) -> str:
        make = PARTS.get(found[1])
        return make(path.stem) if make else found[0]

    return _COMMENT.sub(part, markdown)
