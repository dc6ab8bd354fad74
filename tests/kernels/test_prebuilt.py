"""The library that a wheel brings: loaded if it fits the sources and the machine, and otherwise passed over."""

import contextlib
import logging
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantizers.kernels.common.compiled import build, compiler, library

MACHINE = slice(18, 20)  # of an ELF header


def no_process(*_: object, **__: object) -> None:
    raise AssertionError("started a process")


@pytest.fixture
def whole() -> bytes:
    """A library that this machine can load."""
    try:
        path = Path(library.library()._name)
    except library.CompilationError as error:
        pytest.skip(str(error))
    if not path.exists():
        pytest.skip("the library was loaded from a temporary folder")
    return path.read_bytes()


@pytest.fixture
def prebuilt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the wheel's library is looked for. There is no compiler, and an empty cache."""
    (tmp_path / "prebuilt").mkdir()
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("QUANTIZERS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(library, "PREBUILT", tmp_path / "prebuilt")
    monkeypatch.setattr(library.cache, "private_folder", lambda: tmp_path / "private")
    monkeypatch.setattr(compiler.shutil, "which", lambda name: None)
    library.forget()
    yield tmp_path / "prebuilt" / f"{build.library_name(platform.machine(), library.machine_instructions())}.so"
    library.forget()


def test_a_whole_library_is_loaded_without_a_compiler_or_a_process(
    whole: bytes, prebuilt: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(subprocess, "Popen", no_process)
    prebuilt.write_bytes(whole)
    assert library.library()._name == str(prebuilt)
    assert not caplog.text


def test_a_library_of_other_sources_is_not_loaded(
    whole: bytes, prebuilt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prebuilt.write_bytes(whole)
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-DCHANGED"))
    with pytest.raises(library.CompilationError, match="no C"):
        library.library()


@contextlib.contextmanager
def passed_over(prebuilt: Path, content: bytes) -> Iterator[None]:
    """The library has this content; it is neither loaded nor does it end the process."""
    prebuilt.write_bytes(content)
    library.forget()
    with pytest.raises(library.CompilationError, match="no C"):
        library.library()
    yield


@given(length=st.floats(0, 1, exclude_max=True))
def test_a_library_cut_short_anywhere_is_passed_over(
    whole: bytes, prebuilt: Path, caplog: pytest.LogCaptureFixture, length: float
) -> None:
    with passed_over(prebuilt, whole[: int(length * len(whole))]):
        assert str(prebuilt) in caplog.text
        assert "not complete" in caplog.text


@given(machine=st.binary(min_size=2, max_size=2))
def test_a_library_of_another_machine_is_passed_over(
    whole: bytes, prebuilt: Path, caplog: pytest.LogCaptureFixture, machine: bytes
) -> None:
    if machine == whole[MACHINE]:
        return
    with passed_over(prebuilt, whole[: MACHINE.start] + machine + whole[MACHINE.stop :]):
        assert str(prebuilt) in caplog.text


@given(content=st.binary(max_size=200))
def test_a_file_that_is_no_library_is_passed_over(whole: bytes, prebuilt: Path, content: bytes) -> None:
    with passed_over(prebuilt, content + build.END_MARK):
        pass


def test_where_the_wheels_library_is_broken_the_compilers_is_loaded(
    whole: bytes, prebuilt: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(compiler, "find_compiler", lambda: ["true"])
    monkeypatch.setattr(library, "compile_library", lambda _, __, target: target.write_bytes(whole))
    prebuilt.write_bytes(whole[:-1])
    assert Path(library.library()._name).parent.name == "cache"
    assert str(prebuilt) in caplog.text


def test_a_chosen_compiler_takes_precedence(whole: bytes, prebuilt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "true")
    monkeypatch.setattr(library, "compile_library", lambda _, __, target: target.write_bytes(whole))
    prebuilt.write_bytes(whole)
    assert Path(library.library()._name).parent.name == "cache"


def test_a_chosen_compiler_that_is_missing_leaves_the_wheels_library(
    whole: bytes, prebuilt: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As in the second stage of a container's build. The first choice are libraries that it made."""
    monkeypatch.setenv("CXX", "a-compiler-that-is-missing")
    caplog.set_level(logging.INFO, "quantizers")
    prebuilt.write_bytes(whole)
    assert library.library()._name == str(prebuilt)
    assert "a-compiler-that-is-missing" in caplog.text
    kept = prebuilt.parents[1] / "cache" / f"{prebuilt.stem}-0123456789ab.so"
    kept.parent.mkdir()
    kept.write_bytes(whole)
    library.forget()
    assert library.library()._name == str(kept)
