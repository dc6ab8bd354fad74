"""The commands that make one shared library of the C++ sources of kernels/.

They need neither PyTorch nor its headers: the library has a C interface, so that one binary serves every version
of PyTorch and Python. The build of a wheel runs them too, with a cross compiler.
"""

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from quantizers.kernels.common.compiled.definitions import definitions

ROOT = Path(__file__).parents[2]  # kernels/, which the sources include headers from
PREBUILT = Path(__file__).parent / "prebuilt"  # the libraries that a wheel brings
# Compiler flags, by torch's name for a machine's vector instructions.
INSTRUCTIONS = {
    "AVX512": ("-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mavx2", "-mfma"),
    "AVX2": ("-mavx2", "-mfma"),
    "portable": (),
}
# Compilers differ in what they contract to fused multiply-adds by default.
FLAGS = ("-O3", "-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast")
# Windows does not look for the compiler's own libraries where the compiler is.
LOCAL_FLAGS, LOCAL_LINK_FLAGS = ((), ("-static",)) if os.name == "nt" else (("-fPIC", "-pthread"), ("-pthread",))

END_MARK = b"quantizers: the last bytes of a whole library"


class CompilationError(RuntimeError):
    """The sources could not be compiled or loaded. The message gives the reason."""


def library_name(machine: str, instructions: str) -> str:
    """Return the stem of a library's file name.

    It depends on everything that determines the content, except for the compiler.

    Args:
        machine: as `platform.machine()` names it. instructions: a key of INSTRUCTIONS.
    """
    inputs = [repr((FLAGS, INSTRUCTIONS[instructions], definitions())).encode()]
    inputs += [
        source.relative_to(ROOT).as_posix().encode() + source.read_bytes()
        for source in _sources("*.h") + _sources("*.cpp")
    ]
    digest = hashlib.sha256(b"\0".join(inputs)).hexdigest()[:20]
    return f"quantizers-{machine.lower()}-{instructions.lower()}-{digest}"


def compile_library(
    compiler: Sequence[str],
    instructions: str,
    target: Path,
    flags: Sequence[str] = LOCAL_FLAGS,
    link_flags: Sequence[str] = LOCAL_LINK_FLAGS,
) -> None:
    """Compile next to the target and move it there atomically, so that another process sees all of it or nothing.

    Raises: CompilationError, with the command and what the compiler wrote.
    """
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="building-") as building:
        objects = {source: f"{building}/{source.stem}.o" for source in _sources("*.cpp")}
        command = [*compiler, *FLAGS, *flags, *INSTRUCTIONS[instructions], *definitions(), f"-I{ROOT}", "-c"]
        _run_all([[*command, str(source), "-o", made] for source, made in objects.items()])
        made = Path(building) / "library.so"
        _run_all([[*compiler, "-shared", *objects.values(), *link_flags, "-o", str(made)]])
        with made.open("ab") as file:
            file.write(END_MARK)
        os.replace(made, target)


def is_complete(path: Path) -> bool:
    """Whether the library is complete: loading a truncated one would crash the process."""
    try:
        return path.read_bytes().endswith(END_MARK)
    except OSError:
        return False


def _sources(pattern: str) -> list[Path]:
    return sorted(ROOT.rglob(pattern))


def _run_all(commands: Sequence[Sequence[str]]) -> None:
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
