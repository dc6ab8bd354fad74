"""Links in Markdown text: found outside code, and changed one by one."""

import posixpath
import re
from collections.abc import Callable, Iterator

_FENCED = r"^(?P<fence>[ ]*(?:`{3,}|~{3,})).*?(?:^(?P=fence)|\Z)"
_QUOTED = r"(?<!`)(?P<tick>`+)(?!`)(?:(?!\n\n).)+?(?<!`)(?P=tick)(?!`)"
_TARGET = r"(?P<before>\]\(\s*<?)(?P<target>[^\s<>()]+(?:\([^\s()]*\)[^\s<>()]*)*)"
_DEFINITION = r"^(?P<label>[ ]{0,3}\[[^\]^][^\]]*\]:\s+)(?P<defined>\S+)"
_FOUND = re.compile(f"{_FENCED}|{_QUOTED}|{_TARGET}|{_DEFINITION}", re.MULTILINE | re.DOTALL)


def changed(markdown: str, change: Callable[[str], str]) -> str:
    """Markdown whose link and image targets, with their anchors, are replaced by `change(target)`."""

    def replace(found: re.Match[str]) -> str:
        if found["target"]:
            return found["before"] + change(found["target"])
        if found["defined"]:
            return found["label"] + change(found["defined"])
        return found[0]

    return _FOUND.sub(replace, markdown)


def targets(markdown: str) -> Iterator[str]:
    """All targets of links and images, in order."""
    for found in _FOUND.finditer(markdown):
        target = found["target"] or found["defined"]
        if target:
            yield target


def is_relative(target: str) -> bool:
    """Whether a target is a path from the page that links to it: no "scheme:", "/" or bare "#anchor"."""
    return not re.match(r"[a-z][a-z0-9+.-]*:|/|#|\?", target, re.IGNORECASE)


def resolved(target: str, folder: str) -> tuple[str, str]:
    """The path of a relative target seen from a folder, and its "#anchor" or ""."""
    path, mark, anchor = target.partition("#")
    return posixpath.normpath(posixpath.join(folder, path)), mark + anchor


def relative(path: str, page: str) -> str:
    """The path that a page writes for another one; both relative to the same folder."""
    return posixpath.relpath(path, posixpath.dirname(page) or ".")
