"""The C++ sources beside this file as a shared library: compiled on first use, for this machine, and kept.

PyTorch's own compiler and Triton build what they need with the system's C++ compiler at first use; so does this.
The library lies in the folder that the environment variable QUANTIZERS_CACHE names, else in the user's cache
folder (XDG_CACHE_HOME, ~/.cache), under a name made of everything that it depends on. One that is there is used
where nothing can be written, too. Where there is no such folder (a user without a home), or it cannot be written,
is full or mounted noexec, each process compiles in a temporary one. Set CXX for another compiler.
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

FOLDER = Path(__file__).parent
# What the sources are compiled for, by the name that torch has for this machine's vector instructions.
INSTRUCTIONS = {
    "AVX512": ("-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mavx2", "-mfma"),
    "AVX2": ("-mavx2", "-mfma"),
    "portable": (),
}
FLAGS = ("-O3", "-std=c++17", "-fPIC", "-fno-math-errno", "-fno-trapping-math")


WHOLE = b"quantizers: the last bytes of a whole library"
ROOM = 2**20  # bytes that a compilation takes, and more


class CompilationError(RuntimeError):
    """The sources could not be compiled or loaded; the message says why."""


def library() -> ctypes.CDLL:
    """The library for this machine's vector instructions.

    Raises: CompilationError, again and at once on each call after the first.
    """
    outcome = _try_library(machine_instructions())
    if isinstance(outcome, CompilationError):
        raise outcome
    return outcome


def forget() -> None:
    """Look for the compiler and the library anew at the next call."""
    _try_library.cache_clear()


def machine_instructions() -> str:
    """The key of INSTRUCTIONS for this machine, asked of torch (which obeys ATEN_CPU_CAPABILITY)."""
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
        ctypes.CDLL(str(runtime), mode=ctypes.RTLD_GLOBAL)  # where the library finds its symbols when it is loaded
        # Not all that a compiler calls need be there: clang's calls are not in GCC's runtime.
        with contextlib.suppress(OSError):
            return _load_with(compiler, instructions, link_openmp=False)
    return _load_with(compiler, instructions, link_openmp=True)


def _load_with(compiler: list[str], instructions: str, link_openmp: bool) -> ctypes.CDLL:
    name = _name(compiler, instructions, link_openmp)
    wanted = _wanted_folder()
    if wanted is not None and _is_whole(wanted / name) and not _is_noexec(wanted):
        return ctypes.CDLL(str(wanted / name))
    if (folder := cache_folder()) is not None:
        return ctypes.CDLL(str(_compile(compiler, instructions, link_openmp, folder / name)))
    # Once loaded, the file may go.
    with tempfile.TemporaryDirectory(prefix="quantizers-") as temporary:
        return ctypes.CDLL(str(_compile(compiler, instructions, link_openmp, Path(temporary) / name)))


def cache_folder() -> Path | None:
    """Where compiled libraries are kept, made if it is not there.

    None where the environment names no folder, and where it has no room or cannot be written or loaded from.
    """
    folder = _wanted_folder()
    if folder is None:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            has_room = file.write(bytes(ROOM)) == ROOM
        return folder if has_room and not _is_noexec(folder) else None
    except OSError:
        return None


def _wanted_folder() -> Path | None:
    """The folder that the environment names, whether or not it is there; None for a user without a home."""
    user = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = os.path.expanduser(os.environ.get("QUANTIZERS_CACHE") or f"{user}/quantizers-torch")
    if folder.startswith("~"):
        return None
    try:
        return Path(folder).absolute()
    except OSError:  # the current folder, to which it is relative, is gone
        return None


def _is_noexec(folder: Path) -> bool:
    """Whether libraries in a folder that is there cannot be loaded, because of how it is mounted."""
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
    raise CompilationError("no C++ compiler (g++, clang++ or c++) is on the PATH; install one, or set CXX")


def _openmp_runtime() -> Path | None:
    """The OpenMP library that torch runs on, if it can be told: two of them in one process fight for the cores."""
    try:
        maps = Path("/proc/self/maps").read_text(errors="surrogateescape")
    except OSError:
        return None
    paths = re.findall(r"(/.*/lib(?:gomp|iomp5|omp)[^/]*\.so[^/]*)$", maps, re.MULTILINE)
    return Path(paths[0]) if paths else None


def _name(compiler: list[str], instructions: str, link_openmp: bool) -> str:
    version = subprocess.run([*compiler, "--version"], capture_output=True, check=True).stdout
    parts = [repr((compiler, FLAGS, INSTRUCTIONS[instructions], link_openmp)).encode(), version]
    parts += [source.name.encode() + source.read_bytes() for source in _sources("*.h") + _sources("*.cpp")]
    digest = hashlib.sha256(b"\0".join(parts)).hexdigest()[:20]
    return f"quantizers-{platform.machine()}-{instructions.lower()}-{digest}.so"


def _sources(pattern: str) -> list[Path]:
    return sorted(FOLDER.glob(pattern))


def _compile(compiler: list[str], instructions: str, link_openmp: bool, target: Path) -> Path:
    """Compile beside the target and move it there at once: another process sees all of it or nothing."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="building-") as building:
        objects = {source: f"{building}/{source.stem}.o" for source in _sources("*.cpp")}
        command = [*compiler, *FLAGS, *INSTRUCTIONS[instructions], "-fopenmp", "-c"]
        _run_all([[*command, str(source), "-o", made] for source, made in objects.items()])
        made = Path(building) / "library.so"
        openmp = ["-fopenmp"] if link_openmp else []
        _run_all([[*compiler, "-shared", *objects.values(), *openmp, "-o", str(made)]])
        with made.open("ab") as file:
            file.write(WHOLE)
        os.replace(made, target)
    return target


def _is_whole(path: Path) -> bool:
    """Whether all of a library is there: to load one that was cut short would end the process."""
    try:
        return path.read_bytes().endswith(WHOLE)
    except OSError:
        return False


def _run_all(commands: list[list[str]]) -> None:
    """Run commands side by side. Raises: CompilationError with the first that failed."""
    environment = {"PATH": os.defpath, **os.environ}  # by which a compiler finds the linker
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
