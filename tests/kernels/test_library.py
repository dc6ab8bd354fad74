"""Compiling on first use: once, whole, wherever there is room, by one of the processes that start at once."""

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from quantizers.kernels.common.compiled import build, cache, compiler, library

PROGRAM = """
import torch
from quantizers.kernels.common.dispatch import use_implementation
from quantizers.kernels.nearest.operation import nearest_code
with use_implementation("compiled"):
    print(nearest_code(torch.tensor([[[1.0], [5.0]]]), torch.tensor([[[4.0], [0.0]]]))[0].tolist())
"""
ANSWER = "[[1, 0]]"


@pytest.fixture(autouse=True)
def _compiler() -> None:
    try:
        library.library()
    except library.CompilationError as error:
        pytest.skip(str(error))


def start(folder: Path, **variables: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "QUANTIZERS_CACHE": str(folder), **variables}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def answer(process: subprocess.Popen[str]) -> str:
    """What a process says on standard error; it must have computed the right answer."""
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert out.strip() == ANSWER
    return err


def kept(folder: Path) -> list[Path]:
    """The libraries in a cache, which holds nothing half-made beside them."""
    libraries = sorted(folder.glob("*.so"))
    assert {path.name for path in folder.iterdir()} <= {".lock", *(path.name for path in libraries)}
    return libraries


@pytest.fixture
def copying_compiler(tmp_path: Path) -> str:
    """In a compiler's place: it takes its time, and gives the library that this machine's compiler made before.

    How a library comes into a cache has nothing to do with what the compiler does in its ten seconds. It writes a
    line to the file `linked` for each library.
    """
    compiler, source, made = tmp_path / "compiler", tmp_path / "source", Path(library.library()._name)
    if not made.exists():
        pytest.skip("the library was loaded from a temporary folder")
    source.write_bytes(made.read_bytes().removesuffix(build.END_MARK))
    compiler.write_text(
        "#!/bin/sh\n"
        "for last; do :; done\n"
        f'case "$1" in --version) ;; -shared) sleep 1; cp "{source}" "$last"; echo >> "{tmp_path}/linked" ;; '
        '*) touch "$last" ;; esac\n'
    )
    compiler.chmod(0o755)
    return str(compiler)


def times_linked(folder: Path) -> int:
    return len((folder / "linked").read_text().splitlines())


@pytest.mark.slow
def test_processes_that_start_at_once_compile_once(tmp_path: Path, copying_compiler: str) -> None:
    folder = tmp_path / "made" / "when needed"
    processes = [start(folder, CXX=copying_compiler) for _ in range(2)]
    said = [answer(process) for process in processes]
    (made,) = kept(folder)
    before = made.stat().st_mtime_ns
    assert not answer(start(folder, CXX=copying_compiler))
    assert made.stat().st_mtime_ns == before
    assert times_linked(tmp_path) == 1
    assert "".join(said).count("\n") == 1  # by the one that compiled, naming where
    assert str(folder) in "".join(said)


@pytest.mark.slow
def test_a_process_killed_while_it_compiles_does_not_block_others(tmp_path: Path, copying_compiler: str) -> None:
    folder, hanging = tmp_path / "cache", tmp_path / "hanging"
    hanging.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exit 0\necho >> "{tmp_path}/begun"\nexec sleep 1000\n')
    hanging.chmod(0o755)
    process = start(folder, CXX=str(hanging))
    try:
        while not (tmp_path / "begun").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
        process.communicate()
        answer(start(folder, CXX=copying_compiler))  # while the other's compiler still runs
    finally:
        os.killpg(process.pid, signal.SIGKILL)
    assert len(list(folder.glob("*.so"))) == 1


@pytest.mark.long("an end-to-end run")
@pytest.mark.slow
def test_a_library_cut_short_is_made_again(tmp_path: Path, copying_compiler: str) -> None:
    folder = tmp_path / "cache"
    answer(start(folder, CXX=copying_compiler))
    (made,) = kept(folder)
    made.write_bytes(made.read_bytes()[:1000])
    assert "not complete" in answer(start(folder, CXX=copying_compiler))
    ctypes.CDLL(str(made))


@pytest.mark.long("an end-to-end run")
@pytest.mark.slow
def test_where_the_cache_cannot_be_written_the_users_temporary_folder_keeps_the_library(
    tmp_path: Path, copying_compiler: str
) -> None:
    """A file in the cache's place: what also root cannot make a folder of."""
    (tmp_path / "file").touch()
    (tmp_path / "temporary").mkdir()
    for _ in range(2):
        answer(start(tmp_path / "file", CXX=copying_compiler, TMPDIR=str(tmp_path / "temporary")))
    (folder,) = (tmp_path / "temporary").glob("quantizers-torch-*")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert len(kept(folder)) == 1
    assert times_linked(tmp_path) == 1


@pytest.mark.slow
def test_a_library_serves_when_its_compiler_has_gone(tmp_path: Path, copying_compiler: str) -> None:
    """As in the second stage of a container's build, with and without CXX still set."""
    folder = tmp_path / "cache"
    answer(start(folder, CXX=copying_compiler))
    Path(copying_compiler).unlink()
    for chosen in (copying_compiler, ""):
        assert not answer(start(folder, CXX=chosen, PATH=str(tmp_path)))
    assert len(kept(folder)) == 1


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.skipif(shutil.which("clang++") is None, reason="no clang++")
def test_clang_compiles_the_sources(tmp_path: Path) -> None:
    assert "compiles" in answer(start(tmp_path, CXX="clang++"))


def test_no_further_openmp_runtime_is_loaded() -> None:
    """Two in one process compete for the cores. Run in a process in which nothing but torch has loaded one."""
    program = (
        "import re, torch\n"
        "def loaded():\n"
        "    maps = open('/proc/self/maps').read()\n"
        "    return set(re.findall(r'/\\S*(?:gomp|iomp|libomp)\\S*', maps))\n"
        "before = loaded()\n" + PROGRAM + "print(before == loaded(), len(before))\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert re.fullmatch(r"True [01]", ran.stdout.splitlines()[-1])


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
    monkeypatch.setenv("QUANTIZERS_CACHE", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(cache.tempfile, "tempdir", None)
    with pytest.raises(library.CompilationError, match="no C\\+\\+ compiler"):
        library.library()
    monkeypatch.undo()
    library.forget()


def test_a_program_that_is_no_compiler_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MSVC's `cl` refuses the option --version; the message says which compilers do."""
    for command in (str(tmp_path / "missing"), "false"):
        with pytest.raises(library.CompilationError, match=re.escape(command)):
            compiler.identify([command])
