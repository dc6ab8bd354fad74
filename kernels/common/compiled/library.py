"""The C++ sources of kernels/ as one shared library: compiled for this machine on first use, and cached.

PyTorch's own compiler and Triton also compile with the system's C++ compiler on first use. The library is stored
in the folder named by the environment variable QUANTIZERS_CACHE, or else in the user's cache folder
(XDG_CACHE_HOME, ~/.cache). Its file name depends on everything that determines its content. An existing library is
used even if the folder is not writable. If there is no such folder (a user without a home), or if it is read-only,
full or mounted noexec, each process compiles in a temporary folder. Set CXX to choose another compiler.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

from quantizers.kernels.common.compiled.definitions import definitions

ROOT = Path(__file__).parents[2]  # kernels/, which the sources include headers from
# Compiler flags, by torch's name for this machine's vector instructions.
INSTRUCTIONS = {
    "AVX512": ("-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mavx2", "-mfma"),
    "AVX2": ("-mavx2", "-mfma"),
    "portable": (),
}
FLAGS = ("-O3", "-std=c++17", "-fPIC", "-fno-math-errno", "-fno-trapping-math")


END_MARK = b"quantizers: the last bytes of a whole library"
SPACE_NEEDED = 2**20  # bytes; more than a compilation writes


class CompilationError(RuntimeError):
    """The sources could not be compiled or loaded. The message gives the reason."""


def library() -> ctypes.CDLL:
    """Return the library for this machine's vector instructions.

    Raises: CompilationError, again and immediately on each call after the first failure.
    """
    outcome = _try_library(machine_instructions())
    if isinstance(outcome, CompilationError):
        raise outcome
    return outcome


def forget() -> None:
    """Look for the compiler and the library again at the next call."""
    _try_library.cache_clear()


def machine_instructions() -> str:
    """Return the key of INSTRUCTIONS for this machine, according to torch (which respects ATEN_CPU_CAPABILITY)."""
    capability = torch.backends.cpu.get_cpu_capability()
    return capability if capability in INSTRUCTIONS else "portable"


@functools.cache
def _try_library(instructions: str) -> "ctypes.CDLL | CompilationError":
    try:
        return _load(instructions)
    except (OSError, subprocess.SubprocessError, CompilationError) as error:
        return CompilationError(f"the compiled kernels are not available: {error}")


def _load(instructions: str) -> ctypes.CDLL:
    compiler = _compiler()
    if runtime := _openmp_runtime():
        ctypes.CDLL(str(runtime), mode=ctypes.RTLD_GLOBAL)  # where the library finds its symbols on loading
        # The runtime may lack functions that the compiler calls: GCC's runtime lacks clang's.
        with contextlib.suppress(OSError):
            return _load_with(compiler, instructions, link_openmp=False)
    return _load_with(compiler, instructions, link_openmp=True)


def _load_with(compiler: list[str], instructions: str, link_openmp: bool) -> ctypes.CDLL:
    name = _name(compiler, instructions, link_openmp)
    wanted = _wanted_folder()
    if wanted is not None and _is_complete(wanted / name) and not _is_noexec(wanted):
        return ctypes.CDLL(str(wanted / name))
    if (folder := cache_folder()) is not None:
        return ctypes.CDLL(str(_compile(compiler, instructions, link_openmp, folder / name)))
    # Once loaded, the file may be deleted.
    with tempfile.TemporaryDirectory(prefix="quantizers-") as temporary:
        return ctypes.CDLL(str(_compile(compiler, instructions, link_openmp, Path(temporary) / name)))


def cache_folder() -> Path | None:
    """Return the folder for compiled libraries, created if needed.

    None if the environment names no folder, or if the folder is full, read-only or mounted noexec.
    """
    folder = _wanted_folder()
    if folder is None:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            has_space = file.write(bytes(SPACE_NEEDED)) == SPACE_NEEDED
        return folder if has_space and not _is_noexec(folder) else None
    except OSError:
        return None


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


def _is_noexec(folder: Path) -> bool:
    """Whether the folder's mount options prevent loading libraries from it."""
    return bool(os.statvfs(folder).f_flag & getattr(os, "ST_NOEXEC", 0))


def _compiler() -> list[str]:
    try:
        chosen = shlex.split(os.environ.get("CXX", ""))
    except ValueError as error:
        raise CompilationError(f"CXX is {os.environ['CXX']!r}, expected a command: {error}") from error
    if chosen:
        return chosen
    for name in ("g++", "clang++", "c++"):
        if found := shutil.which(name):
            return [found]
    raise CompilationError("found no C++ compiler (g++, clang++ or c++) on the PATH; install one, or set CXX")


def _openmp_runtime() -> Path | None:
    """Return torch's OpenMP library if it can be found: two of them in one process compete for the cores."""
    try:
        maps = Path("/proc/self/maps").read_text(errors="surrogateescape")
    except OSError:
        return None
    paths = re.findall(r"(/.*/lib(?:gomp|iomp5|omp)[^/]*\.so[^/]*)$", maps, re.MULTILINE)
    return Path(paths[0]) if paths else None


def _name(compiler: list[str], instructions: str, link_openmp: bool) -> str:
    version = subprocess.run([*compiler, "--version"], capture_output=True, check=True).stdout
    inputs = [repr((compiler, FLAGS, INSTRUCTIONS[instructions], definitions(), link_openmp)).encode(), version]
    inputs += [
        source.relative_to(ROOT).as_posix().encode() + source.read_bytes()
        for source in _sources("*.h") + _sources("*.cpp")
    ]
    digest = hashlib.sha256(b"\0".join(inputs)).hexdigest()[:20]
    return f"quantizers-{platform.machine()}-{instructions.lower()}-{digest}.so"


def _sources(pattern: str) -> list[Path]:
    return sorted(ROOT.rglob(pattern))


def _compile(compiler: list[str], instructions: str, link_openmp: bool, target: Path) -> Path:
    """Compile next to the target and move it there atomically, so that another process sees all of it or
    nothing."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="building-") as building:
        objects = {source: f"{building}/{source.stem}.o" for source in _sources("*.cpp")}
        command = [*compiler, *FLAGS, *INSTRUCTIONS[instructions], *definitions(), "-fopenmp", f"-I{ROOT}", "-c"]
        _run_all([[*command, str(source), "-o", made] for source, made in objects.items()])
        made = Path(building) / "library.so"
        openmp = ["-fopenmp"] if link_openmp else []
        _run_all([[*compiler, "-shared", *objects.values(), *openmp, "-o", str(made)]])
        with made.open("ab") as file:
            file.write(END_MARK)
        os.replace(made, target)
    return target


def _is_complete(path: Path) -> bool:
    """Whether the library is complete: loading a truncated one would crash the process."""
    try:
        return path.read_bytes().endswith(END_MARK)
    except OSError:
        return False


def _run_all(commands: list[list[str]]) -> None:
    """Run commands in parallel. Raises: CompilationError with the first failure."""
    environment = {"PATH": os.defpath, **os.environ}  # the compiler needs PATH to find the linker
    running = [
        subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        for command in commands
    ]
    outputs = [process.communicate()[0] for process in running]
    for command, process, output in zip(commands, running, outputs, strict=True):
        if process.returncode:
            raise CompilationError(f"`{' '.join(command)}` failed:\n{output.strip()}")
