"""Guides: notebooks that are kept as Python files, run when the site is built, and shown as pages."""

import base64
import hashlib
import logging
import os
import re
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from nbformat import NotebookNode

from docs._hooks.places import ROOT

log = logging.getLogger("mkdocs.hooks.site")

CACHE = ROOT / ".cache" / "notebooks"
SECONDS = 120  # for one notebook
SOURCES = ("quantizers", "kernels")
VERSIONS = ("torch", "numpy", "matplotlib", "ipykernel", "nbclient")
SETTINGS = "%config InlineBackend.figure_formats = ['retina']"
PICTURES = {"image/png": "png", "image/svg+xml": "svg", "image/jpeg": "jpg"}
WIDEST = 720  # pixels of a picture on a page


class NotebookError(Exception):
    """A notebook that fails, takes too long, or writes to stderr."""


class Page(NamedTuple):
    """A notebook as Markdown, with the files that it links to, by name."""

    markdown: str
    files: dict[str, bytes]


def executes() -> bool:
    """Whether notebooks are run; DOCS_EXECUTE=0 leaves out their outputs."""
    return os.environ.get("DOCS_EXECUTE", "1") != "0"


def read(source: Path) -> NotebookNode:
    """The notebook of a Python file in the percent format."""
    notebook = jupytext.reads(source.read_text(), fmt="py:percent")
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    _, notebook = nbformat.validator.normalize(notebook)
    return notebook


def executed(source: Path, root: Path = ROOT, cache: Path = CACHE) -> NotebookNode:
    """The notebook with its outputs, from the cache if nothing has changed. Raises: NotebookError."""
    stored = cache / f"{source.stem}-{_digest(source, root)}.ipynb"
    if stored.is_file():
        return nbformat.read(stored, as_version=4)
    log.info("Running %s", source.name)
    notebook = run(read(source), source.name, root)
    cache.mkdir(parents=True, exist_ok=True)
    for older in cache.glob(f"{source.stem}-{'?' * 16}.ipynb"):
        older.unlink()
    nbformat.write(notebook, stored)
    return notebook


def run(notebook: NotebookNode, name: str, root: Path = ROOT) -> NotebookNode:
    """Run all cells in a fresh kernel and an empty folder, with the checkout's package. Raises: NotebookError."""
    end = time.monotonic() + SECONDS
    path = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
    settings = {
        "PYTHONPATH": path,
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYTHONWARNINGS": "ignore:IProgress not found",  # tqdm's, which some packages import
    }
    notebook.cells.insert(0, nbformat.v4.new_code_cell(SETTINGS))
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        extra_arguments=["--IPKernelApp.log_level=ERROR"],  # or it warns of its own connection
        timeout_func=lambda cell: max(1.0, end - time.monotonic()),
    )
    try:
        with tempfile.TemporaryDirectory() as folder:
            client.resources = {"metadata": {"path": folder}}
            client.execute(env={**os.environ, **settings})
    except CellTimeoutError as error:
        raise NotebookError(f"{name} takes longer than {SECONDS} seconds") from error
    except CellExecutionError as error:
        raise NotebookError(f"{name} fails:\n{error}") from error
    del notebook.cells[0]
    _check_stderr(notebook, name)
    return notebook


def _check_stderr(notebook: NotebookNode, name: str) -> None:
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if output.get("name") == "stderr":
                raise NotebookError(f"{name} writes to stderr:\n{output['text']}")


def page(notebook: NotebookNode, name: str) -> Page:
    """A notebook as a page called `name`, with its figures and both forms of the notebook as files.

    The first cell must begin with the title, below which the page links to the two files.
    """
    parts: list[str] = []
    files: dict[str, bytes] = {f"{name}.ipynb": nbformat.writes(notebook).encode() + b"\n"}
    heading = name
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            heading = next(iter(re.findall(r"^#+ (.*)$", cell.source, re.MULTILINE)[-1:]), heading)
        elif cell.source.strip():
            parts.append(_fenced(cell.source, "python"))
            for part, file in _outputs(cell.get("outputs", ()), f"{name}-{number}", heading):
                parts.append(part)
                files |= file
    title, _, rest = "\n\n".join(parts).partition("\n")
    if not title.startswith("# "):
        raise NotebookError(f"{name}.py begins with {title!r}, expected a Markdown cell that begins with a title")
    line = f"This page is a notebook: [download it]({name}.ipynb), or read it as a [Python file]({name}.py)."
    return Page(f"{title}\n\n{line}\n{rest}\n", files)


def _outputs(outputs: list[NotebookNode], name: str, heading: str) -> Iterator[tuple[str, dict[str, bytes]]]:
    text = ""
    for number, output in enumerate(outputs):
        data = output.get("data", {})
        kind = next((kind for kind in PICTURES if kind in data), None)
        if output.output_type == "stream":
            text += output.text
            continue
        if text:
            yield _output(text), {}
            text = ""
        if kind:
            file = f"{name}-{number}.{PICTURES[kind]}"
            yield f"![Figure: {heading}]({file}){{ {_width(output, kind)} }}", {file: _bytes(data[kind], kind)}
        elif "text/html" in data:
            yield f'<div class="output">\n{data["text/html"]}\n</div>', {}
        elif "text/plain" in data:
            yield _output(data["text/plain"]), {}
    if text:
        yield _output(text), {}


def _output(text: str) -> str:
    return _fenced(text, "{ .text .no-copy .output }")


def _fenced(text: str, info: str) -> str:
    longest = max(map(len, re.findall(r"^`+", text, re.MULTILINE)), default=0)
    marks = "`" * max(3, longest + 1)
    return f"{marks} {info}\n{text.rstrip()}\n{marks}"


def _width(output: NotebookNode, kind: str) -> str:
    width = output.get("metadata", {}).get(kind, {}).get("width")
    return f"width={min(width, WIDEST)}" if width else "loading=lazy"


def _bytes(data: str, kind: str) -> bytes:
    return data.encode() if kind == "image/svg+xml" else base64.b64decode(data)


def _digest(source: Path, root: Path) -> str:
    """What the outputs depend on: the notebook, the library's sources, and the versions of what runs them."""
    digest = hashlib.sha256(source.read_bytes())
    for path in _library(root):
        digest.update(path.read_bytes())
    digest.update(repr([version(each) for each in VERSIONS]).encode())
    digest.update(Path(__file__).read_bytes())
    return digest.hexdigest()[:16]


def _library(root: Path) -> list[Path]:
    found = (
        path for folder in SOURCES for path in (root / folder).rglob("*") if path.suffix in {".py", ".cpp", ".h"}
    )
    return sorted(found)
