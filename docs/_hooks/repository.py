"""Links to files of the repository outside docs/: the files join the site.

A Markdown file becomes a page, with its own links treated alike; any other file is copied.
"""

import posixpath
from pathlib import Path

from docs._hooks import links
from docs._hooks.places import COPIES, DOCS, ROOT, site_path


class BrokenLink(ValueError):
    """A link to a file that is not there, or that no page can show."""


def outside(target: str, page: str) -> str | None:
    """The file outside docs/ that a target of a page leads to, relative to the root; None for any other target.

    Args: page: relative to docs/.
    """
    if not links.is_relative(target):
        return None
    path, _ = links.resolved(target, posixpath.dirname(f"{DOCS}/{page}"))
    return None if path == DOCS or path.startswith(f"{DOCS}/") else path


def checked(path: str, target: str, root: Path = ROOT) -> str:
    """The path itself, if it is a file of the repository. Raises: BrokenLink."""
    if path.startswith("../"):
        raise BrokenLink(f"the link {target!r} leads out of the repository")
    if (root / path).is_dir():
        raise BrokenLink(
            f"the link {target!r} leads to a directory, which a site cannot show: link to a file in it"
        )
    if not (root / path).is_file():
        raise BrokenLink(f"the link {target!r} leads to {path}, which does not exist")
    return path


def into_site(markdown: str, page: str, root: Path = ROOT) -> str:
    """A page's Markdown with links to the site's copies in place of links out of docs/. Raises: BrokenLink."""

    def change(target: str) -> str:
        path = outside(target, page)
        if path is None:
            return target
        _, anchor = links.resolved(target, "")
        return links.relative(site_path(checked(path, target, root)), page) + anchor

    return links.changed(markdown, change)


def moved(markdown: str, source: str, page: str) -> str:
    """Markdown of a file of the repository with the links that it needs as a page of docs/."""

    def change(target: str) -> str:
        if not links.is_relative(target):
            return target
        path, anchor = links.resolved(target, posixpath.dirname(source))
        return links.relative(path, f"{DOCS}/{page}") + anchor

    return links.changed(markdown, change)


def copies(markdown: str, page: str, root: Path = ROOT) -> set[str]:
    """The files outside docs/ that a page needs in the site, relative to the root. Raises: BrokenLink."""
    found = ((outside(target, page), target) for target in links.targets(markdown))
    paths = {checked(path, target, root) for path, target in found if path is not None}
    return {path for path in paths if site_path(path).startswith(f"{COPIES}/")}
