"""Which folder keeps the compiled library: one that can be written, that has room, and that is the user's own."""

import fcntl
import itertools
import logging
import os
import pwd
import resource
import signal
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from quantizers.kernels.common.compiled import build, cache, compiler, library


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary directory."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the environment names."""
    folder = tmp_path / "wanted"
    monkeypatch.setenv("QUANTIZERS_CACHE", str(folder))
    return folder


def test_without_permission_to_write_the_private_folder_is_the_cache(wanted: Path) -> None:
    assert cache.cache_folder() == wanted
    wanted.chmod(stat.S_IRUSR | stat.S_IXUSR)
    if os.access(wanted, os.W_OK):
        pytest.skip("this user may write anywhere")
    assert cache.cache_folder() == cache.private_folder()


def test_the_cache_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUANTIZERS_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / "quantizers-torch"


def test_a_full_disk_is_not_the_cache(wanted: Path) -> None:
    """Played by a limit on the size of files, which a write meets in the same way."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for least, expected in ((cache.SPACE_NEEDED - 1, None), (cache.SPACE_NEEDED, wanted)):
        resource.setrlimit(resource.RLIMIT_FSIZE, (least, limits[1]))
        try:
            assert cache.cache_folder() == expected
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("is_private", [False, True])
def test_a_folder_mounted_noexec_is_not_the_cache(
    wanted: Path, monkeypatch: pytest.MonkeyPatch, is_private: bool
) -> None:
    """The temporary directory often is not what the home is."""
    usual, noexec = os.statvfs("/"), os.statvfs_result((0,) * 8 + (os.ST_NOEXEC, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: usual if is_private and path != wanted else noexec)
    assert cache.cache_folder() == (cache.private_folder() if is_private else None)
    assert wanted not in cache.folders()


def test_windows_has_no_mount_options_and_no_user_numbers(wanted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "statvfs")
    monkeypatch.delattr(os, "getuid")
    assert cache.cache_folder() == wanted
    wanted.rmdir()
    wanted.touch()
    assert cache.cache_folder() == cache.private_folder()


def as_another_user(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, -1)


STATES: dict[str, tuple[Callable[[Path], object], bool]] = {
    "missing": (lambda folder: None, True),
    "ours": (lambda folder: folder.mkdir(mode=0o700), True),
    "readable by all": (lambda folder: (folder.mkdir(), folder.chmod(0o755)), False),
    "writable by all": (lambda folder: (folder.mkdir(), folder.chmod(0o777)), False),
    "a file": (lambda folder: folder.touch(0o700), False),
    "a link": (lambda folder: folder.symlink_to(folder.parent), False),
    "a link to nothing": (lambda folder: folder.symlink_to(folder / "missing"), False),
    "another user's": (as_another_user, False),
}


@pytest.mark.parametrize("name", STATES)
def test_only_a_private_folder_of_this_user_takes_the_place_of_the_cache(wanted: Path, name: str) -> None:
    """Anyone can create a folder, or a link, under a name in the temporary directory that is known before."""
    prepare, is_used = STATES[name]
    wanted.touch()
    try:
        prepare(cache.private_folder())
    except PermissionError:
        pytest.skip("this user cannot give folders away")
    assert cache.cache_folder() == (cache.private_folder() if is_used else None)
    assert cache.folders() == ([cache.private_folder()] if is_used else [])


def test_a_lock_held_too_long_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its holder may have been stopped."""
    monkeypatch.setattr(cache, "PATIENCE", 0.1)
    with (tmp_path / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with caplog.at_level(logging.WARNING, "quantizers"), cache.locked(tmp_path):
            assert str(tmp_path) in caplog.text
    caplog.clear()
    with cache.locked(tmp_path):
        assert not caplog.text


@pytest.mark.parametrize("problem", [OSError("no locks available"), NotImplementedError("no flock")])
def test_a_file_system_without_locks_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    import filelock

    def acquire(self: filelock.FileLock) -> None:
        raise problem

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    with cache.locked(tmp_path):
        (tmp_path / "made").touch()


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """The paths that libraries are loaded from, with nothing in the compiler's and the loader's place."""
    loaded: list[Path] = []

    def load(path: str, mode: int = 0) -> Path:
        assert build.is_complete(Path(path))
        loaded.append(Path(path))
        return Path(path)

    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(library.ctypes, "CDLL", load)
    monkeypatch.setattr(library.openmp, "connect", lambda found: None)
    monkeypatch.setattr(
        library, "compile_library", lambda command, instructions, target: target.write_bytes(build.END_MARK)
    )
    monkeypatch.setattr(compiler, "find_compiler", lambda: ["true"])
    library.forget()
    yield loaded
    library.forget()


def test_wherever_a_user_is_at_home_or_not_a_library_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loads: list[Path], temporary: Path
) -> None:
    """From the first folder that the environment names, else from the user's in the temporary directory."""
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
        (temporary / str(number)).mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(temporary / str(number)))
        library.forget()
        library.library()
        found = loads.pop()
        assert not loads
        if expected is None or blocked in expected.parents or expected == blocked:
            assert found.parent == cache.private_folder()
        else:
            assert found.parent == expected


def test_without_any_folder_the_library_is_loaded_from_one_that_is_gone_afterwards(
    wanted: Path, loads: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    wanted.touch()
    cache.private_folder().touch()
    library.library()
    assert not loads[0].parent.exists()
    assert "QUANTIZERS_CACHE" in caplog.text


def test_a_library_that_is_there_needs_no_permission_to_write(
    wanted: Path, monkeypatch: pytest.MonkeyPatch, loads: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    """As in the image of a container whose file system is read only. Compiling is announced, loading is not."""
    library.library()
    assert str(wanted) in caplog.text
    caplog.clear()
    library.forget()
    monkeypatch.setattr(cache, "cache_folder", lambda: None)
    library.library()
    assert loads[0] == loads[1]
    assert loads[0].parent == wanted
    assert not caplog.text


def test_a_relative_cache_is_loaded_by_its_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loads: list[Path]
) -> None:
    """A bare name would be looked for among the system's libraries."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QUANTIZERS_CACHE", ".")
    library.library()
    assert loads[0].parent == tmp_path
