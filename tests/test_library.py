"""Compiling on first use: once, whole, wherever there is room, by many processes at once."""

import ctypes
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from quantizers.kernels.compiled import library

PROGRAM = """
import torch
from quantizers.kernels.dispatch import use_implementation
from quantizers.kernels.ops.nearest import nearest_code
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
    linked.write_bytes(made.read_bytes().removesuffix(library.WHOLE))
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


def test_no_compiler_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    library.forget()
    with pytest.raises(library.CompilationError, match="no C\\+\\+ compiler"):
        library.library()
    monkeypatch.undo()
    library.forget()
