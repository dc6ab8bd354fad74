"""llms.txt, a list of the pages for language models (llmstxt.org), and llms-full.txt, all of them in one file."""

import importlib
import inspect
import re
from collections.abc import Sequence
from typing import NamedTuple


class Entry(NamedTuple):
    """A page: its section in the navigation, its title, its address relative to the site, and its Markdown."""

    section: str
    title: str
    url: str
    markdown: str


def index(name: str, summary: str, entries: Sequence[Entry]) -> str:
    """The text of llms.txt."""
    lines = [f"# {name}", "", f"> {summary}"]
    section = None
    for entry in entries:
        if entry.section != section:
            section = entry.section
            lines += ["", f"## {section}", ""]
        said = first_sentence(entry.markdown)
        lines.append(f"- [{entry.title}]({entry.url})" + (f": {said}" if said else ""))
    return "\n".join(lines) + "\n"


def full(entries: Sequence[Entry]) -> str:
    """The text of llms-full.txt."""
    return "\n\n".join(described(entry.markdown).strip() for entry in entries) + "\n"


def first_sentence(markdown: str) -> str:
    """The first sentence of a page's first paragraph, as plain text; empty if it has none."""
    for paragraph in re.split(r"\n\s*?\n", _without_code(markdown)):
        text = " ".join(paragraph.split())
        if (
            text
            and not paragraph.startswith("    ")
            and text[0] not in "#|!<:*-$"
            and not text.startswith("This page is a notebook")
        ):
            plain = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
            return re.split(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)\s|:$", plain, maxsplit=1)[0]
    return ""


def described(markdown: str) -> str:
    """Markdown with the signature and docstring of each object in place of mkdocstrings' lines for it."""
    return re.sub(
        r"^::: (\S+)\n(?:[ ]{4}.*\n?|\n(?=[ ]{4}))*", lambda found: _entry(found[1]), markdown, flags=re.MULTILINE
    )


def _entry(path: str) -> str:
    value = _object(path)
    signature = ""
    if inspect.isclass(value) or inspect.isroutine(value):
        try:
            signature = f"```python\n{path.rpartition('.')[2]}{inspect.signature(value)}\n```\n\n"
        except ValueError:  # of some builtins
            signature = ""
    return f"## {path}\n\n{signature}{inspect.getdoc(value) or ''}\n"


def _object(path: str) -> object:
    parts = path.split(".")
    for count in range(len(parts), 0, -1):
        try:
            value: object = importlib.import_module(".".join(parts[:count]))
        except ImportError:
            continue
        for name in parts[count:]:
            value = getattr(value, name)
        return value
    raise ImportError(f"there is no {path}")


def _without_code(markdown: str) -> str:
    return re.sub(r"^(`{3,}|~{3,}).*?^\1", "", markdown, flags=re.MULTILINE | re.DOTALL)
