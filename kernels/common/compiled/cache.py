"""The folders that keep compiled libraries from one process to the next.

The first choice is the folder that the environment variable QUANTIZERS_CACHE names, or else the user's cache
folder (XDG_CACHE_HOME, ~/.cache). Where it cannot be written or used, a folder of this user in the temporary
directory takes its place.
"""

import contextlib
import logging
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

SPACE_NEEDED = 2**20  # bytes; more than a compilation writes
PATIENCE = 600.0  # seconds to wait for another process that compiles; it may have been stopped

logger = logging.getLogger("quantizers")


def folders() -> list[Path]:
    """Return the folders that libraries may be loaded from, in order of preference."""
    wanted, private = _wanted_folder(), private_folder()
    candidates = [wanted, private if _is_private(private) else None]
    return [path for path in candidates if path is not None and os.path.isdir(path) and not _is_noexec(path)]


def cache_folder() -> Path | None:
    """Return the folder for new libraries, created if needed; None if no folder can be written and loaded from."""
    if (wanted := _wanted_folder()) is not None and _can_keep(wanted):
        return wanted
    private = private_folder()
    with contextlib.suppress(OSError):
        private.mkdir(mode=0o700, exist_ok=True)
        if _is_private(private) and _can_keep(private):
            return private
    return None


def private_folder() -> Path:
    """Return the path of this user's folder in the temporary directory, which may not exist."""
    user = os.getuid() if hasattr(os, "getuid") else "cache"  # on Windows the whole directory is the user's
    return Path(tempfile.gettempdir()).absolute() / f"quantizers-torch-{user}"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Run a block while no other process runs one for this folder. A process's lock ends with the process.

    Where the file system has no locks, or another process holds one for longer than PATIENCE, the block runs
    anyway.
    """
    import filelock

    lock = filelock.FileLock(folder / ".lock", timeout=PATIENCE)
    try:
        lock.acquire()
    except filelock.Timeout:
        logger.warning("another process has held the lock of %s for %d s; going on without it", folder, PATIENCE)
    except (OSError, NotImplementedError) as error:
        logger.debug("%s cannot be locked: %s", folder, error)
    try:
        yield
    finally:
        lock.release()


def _wanted_folder() -> Path | None:
    """Return the folder that the environment names, existing or not; None for a user without a home."""
    user = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = os.path.expanduser(os.environ.get("QUANTIZERS_CACHE") or f"{user}/quantizers-torch")
    if folder.startswith("~"):
        return None
    try:
        return Path(folder).absolute()
    except OSError:  # a relative path, and the current folder no longer exists
        return None


def _can_keep(folder: Path) -> bool:
    """Whether a library can be written to the folder and loaded from it; creates the folder if needed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            has_space = file.write(bytes(SPACE_NEEDED)) == SPACE_NEEDED
        return has_space and not _is_noexec(folder)
    except OSError:
        return False


def _is_private(folder: Path) -> bool:
    """Whether the folder exists, and nobody but this user could have written to it.

    Anyone may create a folder in the temporary directory, and loading a library runs its code.
    """
    try:
        status = folder.lstat()
    except OSError:
        return False
    if not hasattr(os, "getuid"):
        return stat.S_ISDIR(status.st_mode)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077


def _is_noexec(folder: Path) -> bool:
    """Whether the folder's mount options prevent loading libraries from it."""
    return hasattr(os, "statvfs") and bool(os.statvfs(folder).f_flag & getattr(os, "ST_NOEXEC", 0))
