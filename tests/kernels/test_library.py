"""Compiling on first use: once, whole, wherever there is room, by many processes at once."""

import ctypes
import itertools
import os
import pwd
import resource
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from quantizers.kernels.common.compiled import library

PROGRAM = """
import torch
from quantizers.kernels.common.dispatch import use_implementation
from quantizers.kernels.nearest.operation import nearest_code
with use_implementation("compiled"):
    print(nearest_code(torch.tensor([[[1.0], [5.0]]]), torch.tensor([[[4.0], [0.0]]]))[0].tolist())
"""


@pytest.fixture(autouse=True)
def _compiler() -> None:
    try:
        library.library()
    except library.CompilationError as error:
        pytest.skip(str(error))


def start(folder: Path, **variables: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "QUANTIZERS_CACHE": str(folder), **variables}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def answer(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out.strip()


@pytest.fixture
def copying_compiler(tmp_path: Path) -> str:
    """In a compiler's place: it takes its time, and gives the library that this machine's compiler made before.

    How a library comes into a cache has nothing to do with what the compiler does in its ten seconds.
    """
    compiler, linked, made = tmp_path / "compiler", tmp_path / "linked", Path(library.library()._name)
    if not made.exists():
        pytest.skip("the library was loaded from a temporary folder")
    linked.write_bytes(made.read_bytes().removesuffix(library.END_MARK))
    compiler.write_text(
        "#!/bin/sh\n"
        "for last; do :; done\n"
        f'case "$1" in --version) ;; -shared) sleep 1; cp "{linked}" "$last" ;; *) touch "$last" ;; esac\n'
    )
    compiler.chmod(0o755)
    return str(compiler)


@pytest.mark.slow
def test_processes_that_start_at_once_find_one_whole_library(tmp_path: Path, copying_compiler: str) -> None:
    folder = tmp_path / "made" / "when needed"
    processes = [start(folder, CXX=copying_compiler) for _ in range(2)]
    assert [answer(process) for process in processes] == ["[[1, 0]]"] * 2
    (made,) = folder.iterdir()  # nothing half-made is left behind
    before = made.stat().st_mtime_ns
    assert answer(start(folder, CXX=copying_compiler)) == "[[1, 0]]"
    assert made.stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_library_cut_short_is_made_again(tmp_path: Path, copying_compiler: str) -> None:
    folder = tmp_path / "cache"
    answer(start(folder, CXX=copying_compiler))
    (made,) = folder.iterdir()
    made.write_bytes(made.read_bytes()[:1000])
    assert answer(start(folder, CXX=copying_compiler)) == "[[1, 0]]"
    ctypes.CDLL(str(made))


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, copying_compiler: str) -> None:
    """A file in its place: what also root cannot make a folder of."""
    (tmp_path / "file").touch()
    assert answer(start(tmp_path / "file", CXX=copying_compiler)) == "[[1, 0]]"


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.skipif(shutil.which("clang++") is None, reason="no clang++")
def test_another_compiler_brings_its_own_openmp(tmp_path: Path) -> None:
    """What clang calls for threads is not in GCC's runtime, which torch has loaded."""
    assert answer(start(tmp_path, CXX="clang++")) == "[[1, 0]]"


def test_a_folder_without_write_permission_is_not_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTIZERS_CACHE", str(tmp_path))
    assert library.cache_folder() == tmp_path
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    if os.access(tmp_path, os.W_OK):
        pytest.skip("this user may write anywhere")
    assert library.cache_folder() is None


def test_the_cache_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUANTIZERS_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert library.cache_folder() == tmp_path / "quantizers-torch"


def test_a_full_disk_is_not_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Played by a limit on the size of files, which a write meets in the same way."""
    monkeypatch.setenv("QUANTIZERS_CACHE", str(tmp_path))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for least, expected in ((library.SPACE_NEEDED - 1, None), (library.SPACE_NEEDED, tmp_path)):
        resource.setrlimit(resource.RLIMIT_FSIZE, (least, limits[1]))
        try:
            assert library.cache_folder() == expected
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_folder_mounted_noexec_is_not_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTIZERS_CACHE", str(tmp_path))
    flags = os.statvfs_result((0,) * 8 + (os.ST_NOEXEC, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: flags)
    assert library.cache_folder() is None


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """The paths that libraries are loaded from, with nothing in the compiler's and the loader's place."""
    loaded: list[Path] = []

    def load(path: str, mode: int = 0) -> None:
        assert library._is_complete(Path(path))
        loaded.append(Path(path))

    def compiled(compiler: list[str], instructions: str, link_openmp: bool, target: Path) -> Path:
        target.write_bytes(library.END_MARK)
        return target

    monkeypatch.setattr(library.ctypes, "CDLL", load)
    monkeypatch.setattr(library, "_compile", compiled)
    monkeypatch.setattr(library, "_compiler", lambda: ["true"])
    monkeypatch.setattr(library, "_openmp_runtime", lambda: None)
    library.forget()
    yield loaded
    library.forget()


def test_wherever_a_user_is_at_home_or_not_a_library_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loads: list[Path]
) -> None:
    """From the first folder that the environment names, else from a temporary one, which is gone afterwards."""
    blocked = tmp_path / "file"
    blocked.touch()  # what not even root can make a folder in
    places = [None, "", str(blocked), "{}"]
    folders = {"QUANTIZERS_CACHE": "", "XDG_CACHE_HOME": "quantizers-torch", "HOME": ".cache/quantizers-torch"}

    def nobody(user: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {user}")

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for number, chosen in enumerate(itertools.product(places, repeat=3)):
        expected: Path | None = None
        for (variable, below), place in reversed(list(zip(folders.items(), chosen, strict=True))):
            folder = place and place.format(tmp_path / str(number) / variable)
            monkeypatch.delenv(variable, raising=False)
            if folder is not None:
                monkeypatch.setenv(variable, folder)
            if folder:
                expected = Path(folder) / below
            elif variable == "HOME" and place == "":
                expected = Path("/") / below  # as the shell takes it
        if expected == Path("/.cache/quantizers-torch"):
            continue  # not ours to write in
        library.forget()
        library.library()
        found = loads.pop()
        assert not loads
        if expected is None or blocked in expected.parents or expected == blocked:
            assert not found.parent.exists()
        else:
            assert found.parent == expected


def test_a_library_that_is_there_needs_no_permission_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loads: list[Path]
) -> None:
    """As in the image of a container whose file system is read only."""
    monkeypatch.setenv("QUANTIZERS_CACHE", str(tmp_path))
    library.library()
    library.forget()
    monkeypatch.setattr(library, "cache_folder", lambda: None)
    library.library()
    assert loads[0] == loads[1]
    assert loads[0].parent == tmp_path


def test_a_relative_cache_is_loaded_by_its_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loads: list[Path]
) -> None:
    """A bare name would be looked for among the system's libraries."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QUANTIZERS_CACHE", ".")
    library.library()
    assert loads[0].parent == tmp_path


def test_a_command_that_cannot_be_split_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "'g++")
    library.forget()
    with pytest.raises(library.CompilationError, match='CXX is "\'g\\+\\+"'):
        library.library()
    monkeypatch.undo()
    library.forget()


def test_a_compiler_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "compiler"
    compiler.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\necho "out of ideas" >&2\nexit 1\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("QUANTIZERS_CACHE", str(tmp_path / "cache"))
    library.forget()
    with pytest.raises(library.CompilationError, match="out of ideas"):
        library.library()
    monkeypatch.undo()
    library.forget()


def test_a_compiler_has_a_path_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`env -i` leaves none; without it g++ does not find the linker."""
    compiler, environment = tmp_path / "compiler", tmp_path / "environment"
    compiler.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exit 0\n/usr/bin/env > "{environment}"\nexit 1\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("QUANTIZERS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PATH")
    library.forget()
    with pytest.raises(library.CompilationError, match="failed"):
        library.library()
    assert f"PATH={os.defpath}" in environment.read_text().splitlines()
    monkeypatch.undo()
    library.forget()


def test_no_compiler_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    library.forget()
    with pytest.raises(library.CompilationError, match="no C\\+\\+ compiler"):
        library.library()
    monkeypatch.undo()
    library.forget()
