"""Compile a Triton kernel for a GPU that is not here, and read what the compiler made of it.

    kernel = compile_for(fn, {"x_ptr": "*fp32", "n": "i32"}, {"BLOCK": 64}, sm=90)
    report(kernel, sm=90)  # {"registers": 124, "stack": 0, "spills": (0, 0), "shared": 32768, "warps": 4}
    main_loop(kernel)  # {"HGMMA": 8, "FFMA": 64, ...}

Needs only the triton wheel, which carries ptxas, cuobjdump and nvdisasm; not under TRITON_INTERPRET=1, where
`triton.jit` makes functions that cannot be compiled.
"""

import contextlib
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from quantizers.kernels.common.triton.recording import Launched

SHARED_MEMORY = {80: 163 * 1024, 90: 227 * 1024}  # bytes a block may use at most
CAPABILITIES = tuple(SHARED_MEMORY)

_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
_MATRIX = ("HMMA", "HGMMA", "DMMA")
_LABEL = re.compile(r"^\s*(\.L\w+):")
_STATEMENT = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(.*?)\s*;")
_INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*)\S*\s*(.*)")


def compile_for(
    fn: Any,
    signature: Mapping[str, str | tuple[str, ...]],
    constexprs: Mapping[str, Any],
    sm: int = 90,
    num_warps: int = 4,
    num_stages: int = 3,
    aligned: Iterable[str | tuple[str, int]] = (),
    **options: Any,
) -> Any:
    """The kernel `fn`, of `triton.jit` or `launched`, compiled for compute capability `sm` (80, 90).

    Args:
        signature: type of each argument that is not in `constexprs`: "*fp32", "*i64", "i32", "fp32", or of each
            element of a tuple.
        aligned: arguments divisible by 16, which a launch finds out (most pointers) and a compile is told; an
            element of a tuple by name and place.
    """
    fn = fn.fn if isinstance(fn, Launched) else fn
    types = {name: "constexpr" if name in constexprs else signature[name] for name in fn.arg_names}
    paths = [(name,) if isinstance(name, str) else name for name in aligned]
    divisible = {(fn.arg_names.index(name), *place): [["tt.divisibility", 16]] for name, *place in paths}
    source = ASTSource(fn=fn, signature=types, constexprs=dict(constexprs), attrs=divisible)
    options = {"num_warps": num_warps, "num_stages": num_stages, "enable_fp_fusion": True, **options}
    return triton.compile(source, target=GPUTarget("cuda", sm, 32), options=options)


def report(kernel: Any, sm: int = 90) -> dict[str, Any]:
    """Of a compiled kernel: registers and stack bytes a thread, spilled bytes (stores, loads), shared bytes
    a block, and warps."""
    with _file("k.cubin", kernel.asm["cubin"]) as cubin:
        usage = _output(_TOOLS / "cuobjdump", "-res-usage", cubin)
    registers, stack = _integers(r"REG:(\d+) STACK:(\d+)", usage)
    return {
        "registers": registers,
        "stack": stack,
        "spills": spills(kernel, sm) if stack else (0, 0),  # what is spilled lies on the stack
        "shared": kernel.metadata.shared,
        "warps": kernel.metadata.num_warps,
    }


def spills(kernel: Any, sm: int = 90) -> tuple[int, ...]:
    """Spilled bytes (stores, loads), which only the assembler tells, as it makes the kernel once more."""
    target = f"sm_{sm}a" if sm >= 90 else f"sm_{sm}"
    with _file("k.ptx", kernel.asm["ptx"].encode()) as ptx:
        said = _output(_TOOLS / "ptxas", "-v", f"--gpu-name={target}", ptx, "-o", ptx.with_name("out"))
    return _integers(r"(\d+) bytes spill stores, (\d+) bytes spill loads", said)


def main_loop(kernel: Any) -> Counter[str]:
    """How often each instruction occurs in a compiled kernel's main loop."""
    with _file("k.cubin", kernel.asm["cubin"]) as cubin:
        return _main_loop(_output(_TOOLS / "nvdisasm", "-c", cubin))


def unset_registers(kernel: Any) -> list[str]:
    """Instructions of a compiled kernel that read a uniform register which no path to them sets.

    Addresses of matrix operands lie in these registers. ptxas 12.8 forgets to set some, so that a product is one
    of other data, without an error.
    """
    with _file("k.cubin", kernel.asm["cubin"]) as cubin:
        return _unset_registers(_output(_TOOLS / "nvdisasm", "-c", cubin))


def _unset_registers(assembly: str) -> list[str]:
    code: list[str] = []
    labels: dict[str, int] = {}
    for line in assembly.splitlines():
        if match := _LABEL.match(line):
            labels[match[1]] = len(code)
        elif match := _STATEMENT.match(line):
            code.append(match[1])
    # Registers set on some path: those that all paths leave unset are the compiler's fault, whatever the branches.
    reached: list[set[int] | None] = [None] * len(code)
    stack: list[tuple[int, set[int]]] = [(0, set())] if code else []
    while stack:
        place, before = stack.pop()
        known = reached[place]
        if known is not None and before <= known:
            continue
        reached[place] = before = before | (known or set())
        written, _ = _uniform(code[place])
        opcode = re.sub(r"^@\S+\s+", "", code[place]).split()[0]
        conditional = code[place].startswith("@") or re.search(r"^BRA\S*\s+!?U?P", code[place]) is not None
        target = re.search(r"\.L\w+", code[place]) if opcode.split(".")[0] == "BRA" else None
        following = [labels[target[0]]] if target and target[0] in labels else []
        if conditional or opcode.split(".")[0] not in ("BRA", "EXIT", "RET"):
            following.append(place + 1)
        stack += [(after, before | written) for after in following if after < len(code)]
    reads = [(statement, _uniform(statement)[1], known) for statement, known in zip(code, reached, strict=True)]
    return [statement for statement, read, known in reads if known is not None and not read <= known]


def _uniform(statement: str) -> tuple[set[int], set[int]]:
    """The uniform registers that an instruction writes and reads."""
    opcode, _, operands = re.sub(r"^@\S+\s+", "", statement).partition(" ")
    destination, _, sources = operands.partition(",")
    written: set[int] = set()
    if re.fullmatch(r"\s*UR\d+", destination) and sources:
        size = 4 if ".128" in opcode else 2 if ".64" in opcode or ".WIDE" in opcode else 1
        written = {int(destination.strip()[2:]) + i for i in range(size)}
    else:
        sources = operands
    read: set[int] = set()
    for kind, number in re.findall(r"(gdesc\[)?\bUR(\d+)\b", sources):
        # An operand in registers leaves only the second descriptor of a matrix product.
        first = 2 if kind and not re.match(r"\s*R\d+,\s*gdesc", operands) else 0
        read |= {int(number) + i for i in (range(first, 4) if kind else [0])}
    return written, read


@contextlib.contextmanager
def _file(name: str, content: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content)
        yield path


def _output(*command: Any) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def _integers(pattern: str, text: str) -> tuple[int, ...]:
    match = re.search(pattern, text)
    if match is None:
        raise ValueError(f"no {pattern!r} in the compiler's output:\n{text}")
    return tuple(int(group) for group in match.groups())


def _main_loop(assembly: str) -> Counter[str]:
    """Opcode counts between a backward branch and its target: of the loop that holds the most matrix (if none,
    FFMA) instructions, and of those the innermost. Empty if there is no such loop."""
    instructions: list[tuple[str, str]] = []
    labels: dict[str, int] = {}
    for line in assembly.splitlines():
        if match := _LABEL.match(line):
            labels[match[1]] = len(instructions)
        elif match := _INSTRUCTION.match(line):
            instructions.append((match[1], match[2]))
    loops = []
    for end, (opcode, operands) in enumerate(instructions):
        target = re.search(r"\.L\w+", operands) if opcode == "BRA" else None
        if target and labels.get(target[0], end + 1) <= end:
            body = Counter(name for name, _ in instructions[labels[target[0]] : end + 1])
            weight = 1000 * sum(body[name] for name in _MATRIX) + body["FFMA"]
            loops.append((weight, -body.total(), body))
    heaviest = max(loops, key=lambda loop: loop[:2], default=(0, 0, Counter()))
    return heaviest[2] if heaviest[0] else Counter()
