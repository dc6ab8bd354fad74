"""The C++ compiler of this machine."""

import hashlib
import os
import shlex
import shutil
import subprocess

from quantizers.kernels.common.compiled.build import CompilationError

NAMES = ("g++", "clang++", "c++")


class NoCompiler(CompilationError):
    """There is no compiler, or it does not run."""


def is_chosen() -> bool:
    """Whether the user has chosen a compiler, by the environment variable CXX."""
    return bool(os.environ.get("CXX", "").strip())


def find_compiler() -> list[str]:
    """Return the command that CXX holds, or else the first compiler on the PATH.

    Raises: NoCompiler if there is none, CompilationError if CXX cannot be split into words.
    """
    if is_chosen():
        try:
            return shlex.split(os.environ["CXX"])
        except ValueError as error:
            raise CompilationError(f"CXX is {os.environ['CXX']!r}, expected a command: {error}") from error
    for name in NAMES:
        if found := shutil.which(name):
            return [found]
    raise NoCompiler(
        f"found no C++ compiler ({', '.join(NAMES[:-1])} or {NAMES[-1]}) on the PATH; install GCC or Clang, or "
        "set CXX (MSVC cannot compile the sources)"
    )


def identify(compiler: list[str]) -> str:
    """Return a digest of the command and of the version that it prints.

    Raises: NoCompiler if it does not run.
    """
    try:
        version = subprocess.run([*compiler, "--version"], capture_output=True, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise NoCompiler(f"`{' '.join(compiler)}` is no C++ compiler that runs here: {error}") from error
    return hashlib.sha256(repr(compiler).encode() + version).hexdigest()[:12]
