"""How a command ends: exit codes, and errors as sentences.

In Python's development mode (`python -X dev -m quantizers ...`) an error keeps its traceback.
"""

import errno
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import typer

from quantizers.cli.ranks import is_first, of_all_ranks, rank_label

R = TypeVar("R")

BAD_INPUT = 2
INTERRUPTED = 130  # the exit code that a shell reports for Ctrl-C
FULL_DISK = "the disk is full, so the results could not be written; earlier files are unchanged"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
RESUMABLE = "Interrupted. Run the same command again to resume from the last checkpoint."
NOTHING_WRITTEN = "Interrupted. Nothing was written."
KNOWN = (OSError, ValueError, TypeError, IndexError, ImportError, RuntimeError, MemoryError)


class InputError(ValueError):
    """A command cannot work with what it was given; its message is a sentence."""


class RankError(InputError):
    """The error of one rank, raised on all of them and printed by the first."""


@contextmanager
def sentences() -> Iterator[None]:
    """Turn an error inside the block that has a sentence into that sentence, on stderr, and exit code 2."""
    try:
        yield
    except (typer.Exit, typer.BadParameter):
        raise
    except Exception as error:
        if sys.flags.dev_mode or not is_known(error):
            raise
        if is_first() or not isinstance(error, RankError):
            typer.echo(f"Error: {rank_label()}{sentence(error)}", err=True)
        raise typer.Exit(BAD_INPUT) from None


@contextmanager
def interruptible(message: str) -> Iterator[None]:
    """Turn Ctrl-C inside the block into a message on stderr and exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        if is_first():
            typer.echo(f"\n{message}", err=True)
        raise typer.Exit(INTERRUPTED) from None


def agreed(prepare: Callable[[], R]) -> R:
    """The result of `prepare` on this rank, once it has succeeded on all ranks.

    Otherwise all ranks raise the error of the first that has one: a rank that went on alone would wait for the
    others for ever.
    """
    try:
        result = prepare()
    except Exception as error:
        if not is_known(error):
            raise
        raise _first_error(of_all_ranks(sentence(error))) from error
    if any(errors := of_all_ranks(None)):
        raise _first_error(errors)
    return result


def is_known(error: Exception) -> bool:
    """Whether an error's message is meant for the user."""
    return isinstance(error, KNOWN) or type(error).__name__ == "SafetensorError"


def sentence(error: BaseException) -> str:
    """What went wrong, for a reader who sees no traceback."""
    text = str(error) or type(error).__name__
    if isinstance(error, MemoryError):
        return f"there is not enough memory: {text}"
    if not isinstance(error, OSError) or error.strerror is None:  # otherwise it comes from the system
        return FULL_DISK if "No space left on device" in text else text
    if error.errno in FULL:
        return FULL_DISK
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror


def _first_error(errors: list[str | None]) -> RankError:
    rank, text = next((rank, text) for rank, text in enumerate(errors) if text)
    return RankError(text if rank == 0 else f"rank {rank}: {text}")
