"""Where things are: the repository's root, and the page or file of the site for each file of the repository."""

from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[2]
DOCS = "docs"
COPIES = "repository"
"""The folder of the site with files of the repository that lie outside docs/."""

PAGES = {"CHANGELOG.md": "changelog.md", "README.md": "index.md", "kernels/README.md": "arithmetic/index.md"}
"""Files outside docs/ that are, or correspond to, a page of the site."""


def arithmetic_sources(root: Path = ROOT) -> dict[str, str]:
    """The page of each operation's derivation: {"arithmetic/nearest.md": "kernels/nearest/README.md", ...}."""
    found = sorted((root / "kernels").glob("*/README.md"))
    return {f"arithmetic/{path.parent.name}.md": path.relative_to(root).as_posix() for path in found}


def site_path(path: str) -> str:
    """The page or file of the site that shows a file of the repository, relative to docs/.

    Args: path: relative to the repository's root, such as "kernels/nearest/README.md".
    """
    parts = PurePosixPath(path).parts
    if parts[0] == DOCS:
        return "/".join(parts[1:])
    if path in PAGES:
        return PAGES[path]
    for page, source in arithmetic_sources().items():
        if source == path:
            return page
    return f"{COPIES}/{path}"
