"""Parts of Markdown pages: blocks of code, rows of tables, displayed equations."""

import re


def code_blocks(page: str) -> list[str]:
    """The blocks of Python."""
    return re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)


def table_rows(page: str) -> list[list[str]]:
    """The cells of the rows of all tables, without their heads."""
    found = []
    for table in re.findall(r"(?:^\|.*\n?)+", page, re.M):
        lines = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in table.splitlines()]
        found += lines[2:]
    return found


DISPLAYED = re.compile(r"^ *\$\$\n(.*?)\n *\$\$$", re.M | re.S)
"""An equation on lines of its own."""
