"""The built site, as its tests read it."""

import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from tests.docs.packages import ROOT

ADDRESSES = {"a": "href", "link": "href", "img": "src", "script": "src", "source": "src", "iframe": "src"}


class Built(NamedTuple):
    """What `make docs` gives: the site's folder, the exit status, and all that was printed."""

    folder: Path
    status: int
    output: str


def build(folder: Path) -> Built:
    """Build the site strictly, without running its notebooks."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "DOCS_EXECUTE": "0", "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    return Built(folder, done.returncode, done.stdout + done.stderr)


class Address(NamedTuple):
    """An address in a page, with the element that has it."""

    element: str
    target: str


class _Addresses(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[Address] = []
        self.ids: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        target = values.get(ADDRESSES.get(tag, ""))
        if target:
            self.found.append(Address(tag, target))
        self.ids.update(filter(None, (values.get("id"), values.get("name"))))


@functools.cache
def addresses(page: Path) -> tuple[list[Address], set[str]]:
    """The addresses and the anchors of a page."""
    parser = _Addresses()
    parser.feed(page.read_text())
    return parser.found, parser.ids


def is_external(target: str) -> bool:
    return target.startswith(("http:", "https:", "//", "data:", "mailto:"))


def pages(folder: Path) -> list[Path]:
    """All pages but 404.html, whose addresses count from the root of a server."""
    return sorted(path for path in folder.rglob("*.html") if path.name != "404.html")


def broken(folder: Path) -> Iterator[str]:
    """Addresses within the site that lead to no file or anchor."""
    read = {page: addresses(page) for page in pages(folder)}
    for page, (found, _) in read.items():
        for _, target in found:
            if is_external(target):
                continue
            path, _, anchor = target.partition("#")
            file = Path(os.path.normpath(page.parent / unquote(path))) if path else page
            if not file.is_file() or (anchor and file in read and unquote(anchor) not in read[file][1]):
                yield f"{page.relative_to(folder)}: {target}"
