"""Docstrings become plain Markdown: labels for sections, lists of arguments, code for examples and equations."""

import ast
import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import griffe

_LABELS = "Args|Attributes|Bounds|Examples?|Memory|Notes?|Raises|Returns|Shapes|Source|State|Yields"
_LONGER_LABELS = "Data parallel|Not supported|State with a mask"
SECTION = re.compile(rf"^({_LABELS}|{_LONGER_LABELS}):(?:\s+(.*))?$")
LABELS = {"Args": "Arguments"}
_ITEM = re.compile(r'^((?:\*{0,2}[\w.]+|"[^"]*")(?:, (?:\*{0,2}[\w.]+|"[^"]*"))*): (.*)$')
_NEXT_ITEM = re.compile(r"(?<=[.;]) (?=[a-z_]+(?:, [a-z_]+)*: )")
_WITHIN = re.compile(r"(?<=[.!)]) (?=(?:Raises|Returns|Args|Shapes): )")
_LIST = re.compile(r"^\s*([-*]|\d+\.) ")


def to_markdown(text: str) -> str:
    """A docstring, without its common indentation, as Markdown."""
    return "\n\n".join(part for block in _blocks(text) if (part := _block(block)).strip())


def _blocks(text: str) -> Iterator[list[str]]:
    """A docstring in pieces: sections with their indented lines, indented blocks, and paragraphs."""
    block: list[str] = []
    for line in _WITHIN.sub("\n", text).splitlines():
        if block and not _continues(block, line):
            yield block
            block = []
        block.append(line)
    yield block


def _continues(block: Sequence[str], line: str) -> bool:
    """Whether a line belongs to the piece of which `block` is the beginning."""
    if SECTION.match(line):
        return False
    first, last = block[0], block[-1]
    if section := SECTION.match(first):
        goes_on = bool(section[2]) and bool(last)  # "Source: ..." may continue without indentation
        return not line or line.startswith(" ") or goes_on
    if _is_indented(first):
        return not line or line.startswith(" ")
    return bool(line) == bool(first)


def _is_indented(line: str) -> bool:
    return line.startswith("    ")


def _block(lines: Sequence[str]) -> str:
    if not lines:
        return ""
    if _is_indented(lines[0]):
        return code(textwrap.dedent("\n".join(lines)).strip("\n"))
    section = SECTION.match(lines[0])
    if section and (section[2] or len(lines) > 1):
        return _section(section[1], section[2] or "", textwrap.dedent("\n".join(lines[1:])).strip("\n"))
    return _prose("\n".join(lines))


def _section(name: str, first: str, rest: str) -> str:
    label = f"**{LABELS.get(name, name)}:**"
    items = arguments(name, first, rest)
    if items:
        return "\n".join([label, "", *(f"- {_names(names)}: {meaning}" for names, meaning in items)])
    if first:
        return f"{label} " + _prose(f"{first}\n{rest}".strip())
    return f"{label}\n\n" + (code(rest) if rest.startswith(">>> ") else to_markdown(rest))


def arguments(name: str, first: str, rest: str) -> list[tuple[str, str]]:
    """The items of a section, each with its names and its meaning on one line; none of a section of prose."""
    lines = [first] if first else []
    for line in rest.splitlines():
        if line.startswith(" ") and lines:
            lines[-1] += " " + line.strip()
        elif line:
            lines.append(line)
    if name == "Args":
        lines = [part for line in lines for part in _NEXT_ITEM.split(line)]
    found = [_ITEM.match(line) for line in lines]
    if name not in ("Args", "Attributes", "Bounds", "Raises") or not all(found):
        return []
    return [(item[1], item[2]) for item in found if item]


def _names(names: str) -> str:
    return ", ".join(f"`{name}`" for name in names.split(", "))


def _prose(text: str) -> str:
    """Paragraphs, with the blank line that Markdown wants before a list."""
    lines: list[str] = []
    for line in text.splitlines():
        if _LIST.match(line) and lines and lines[-1] and not _LIST.match(lines[-1]) and lines[-1][0] != " ":
            lines.append("")
        lines.append(line)
    return "\n".join(lines)


def code(text: str) -> str:
    """A fenced block in the language that the text is written in: a session, Python, or neither."""
    return f"```{_language(text)}\n{text}\n```"


def _language(text: str) -> str:
    if text.startswith(">>> "):
        return "pycon"
    try:
        ast.parse(text)
    except SyntaxError:
        return "text"
    return "python" if "(" in text else "text"


class MarkdownDocstrings(griffe.Extension):
    """Rewrites docstrings for mkdocstrings, and shows it parts of `quantizers` that it does not find itself."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Add the operations, and the names that `quantizers` imports when they are asked for."""
        if pkg.path == "quantizers":
            _add_kernels(pkg)
            _add_lazy_names(pkg)

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Turn the docstring of anything into Markdown, and name the file of what a module defines."""
        if obj.docstring is None:
            return
        obj.docstring.value = to_markdown(obj.docstring.value)
        if (obj.is_class or obj.is_function) and obj.parent is not None and obj.parent.is_module:
            obj.docstring.value += f"\n\n*Defined in* `{source_file(obj)}`"


def _add_kernels(package: griffe.Module) -> None:
    """Add quantizers.kernels, whose folders have no `__init__.py`: griffe looks for packages that have one."""
    top = Path(str(package.filepath)).parent / "kernels"
    kernels = _folder("kernels", top, package)
    for path in sorted(top.glob("*/*.py")):
        name = path.parent.name
        parent = kernels.members.get(name) or _folder(name, path.parent, kernels)
        module = griffe.visit(path.stem, path, path.read_text(), parent=parent)
        parent.set_member(path.stem, module)


def _folder(name: str, path: Path, parent: griffe.Module) -> griffe.Module:
    module = griffe.Module(name, filepath=[path], parent=parent)
    parent.set_member(name, module)
    return module


def _add_lazy_names(package: griffe.Module) -> None:
    """Add `quantizers.watch` and its like, which `quantizers.__getattr__` finds; griffe does not run it."""
    for name, target in ast.literal_eval(str(package["_LAZY"].value)).items():
        if name not in package.members:
            package.set_member(name, griffe.Alias(name, target.replace(":", "."), parent=package))


def source_file(obj: griffe.Object) -> str:
    """The file of an object, from the top of the repository; kernels/ is reached through a link."""
    path = obj.relative_package_filepath.as_posix()
    return path.removeprefix("quantizers/") if path.startswith("quantizers/kernels/") else path
