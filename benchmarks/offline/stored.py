"""The results of finished runs on disk, one file each, so that an interrupted benchmark can be resumed."""

import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import quantizers
from benchmarks import machine
from benchmarks.files import write_json
from benchmarks.offline.cells import Cell
from benchmarks.offline.contenders import Contender
from benchmarks.variants import file_name

HERE = Path(__file__).parent
# The benchmark's files that decide what others' runs measure; ours depend on the library's sources, too.
DECIDING = ("cells", "child", "processes", "tasks", "vectors", "patches", "features", "text")
DISTRIBUTIONS = {"faiss": "faiss-cpu", "sklearn": "scikit-learn"}


@dataclass(frozen=True)
class Run:
    """One run of a contender on a cell.

    round    from 0
    numbers  of processes.measured, with "date" and the "wall" time of the whole process in seconds
    """

    cell: Cell
    contender: str
    round: int
    numbers: dict[str, Any]

    @property
    def error(self) -> str:
        return str(self.numbers.get("error", ""))


def save(folder: Path, key: str, run: Run) -> None:
    path = _path(folder, run.cell, run.contender, run.round)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"fingerprint": key, "numbers": run.numbers})


def load(folder: Path, key: str, cell: Cell, contender: str, number: int) -> Run | None:
    """Return the run; None if there is none with this fingerprint, or if its file is damaged."""
    try:
        stored = json.loads(_path(folder, cell, contender, number).read_bytes())
        return Run(cell, contender, number, dict(stored["numbers"])) if stored["fingerprint"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def fingerprint(cell: Cell, contender: Contender, threads: int) -> str:
    """Return a digest of the cell, the machine, the versions, and the sources that decide the result."""
    decides = [repr(cell), contender.name, threads, machine.processor_name(), library_versions()]
    return hashlib.sha256(
        f"{decides} {_sources(contender.fit.partition(':')[0], contender.ours)}".encode()
    ).hexdigest()


@functools.cache
def library_versions() -> dict[str, str]:
    """Return the versions of Python, torch, numpy, this library, and the others that are installed."""
    found = machine.versions()
    for name in DISTRIBUTIONS.values():
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def _sources(module: str, ours: bool) -> str:
    paths = [HERE / f"{name}.py" for name in (*DECIDING, module)]
    return _digest([*paths, *(_library() if ours else ())])


def _library() -> list[Path]:
    """The sources of the library. The folder kernels is a symbolic link, which rglob does not follow."""
    package = Path(quantizers.__file__).parent
    return sorted(
        path
        for folder in (package, package / "kernels")
        for kind in ("*.py", "*.cpp", "*.h")
        for path in folder.rglob(kind)
    )


def _digest(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _path(folder: Path, cell: Cell, contender: str, number: int) -> Path:
    return folder / file_name(str(cell)) / f"{file_name(contender)}-{number}.json"
