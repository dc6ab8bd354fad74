"""How a command ends: exit codes, errors as sentences, and the check that its output can be written."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console

from benchmarks.errors import InputError
from benchmarks.files import write_text

FAILED = 1  # some measurement failed
BAD_INPUT = 2
INTERRUPTED = 130  # the exit code that a shell reports for Ctrl-C


@contextmanager
def sentences() -> Iterator[None]:
    """Turn an InputError inside the block into its sentence and exit code 2."""
    try:
        yield
    except InputError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(BAD_INPUT) from None


@contextmanager
def resumable(console: Console) -> Iterator[None]:
    """Turn Ctrl-C inside the block into a sentence and exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        console.print("Interrupted. Run the same command again to resume from the last checkpoint.")
        raise typer.Exit(INTERRUPTED) from None


def make_writable(out: Path, *inner: Path) -> None:
    """Create `out` and the folders in it, and try to write there before hours of training. Raises: InputError."""
    try:
        for folder in (out, *inner):
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / ".writable", "")
            (folder / ".writable").unlink()
    except OSError as error:
        raise InputError(f"--out: cannot write in {out}: {error.strerror or error}") from error
