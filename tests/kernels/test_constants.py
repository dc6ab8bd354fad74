"""The constants that several languages share: written once, and passed on without a change."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from quantizers.kernels.common import constants
from quantizers.kernels.common.compiled import build
from quantizers.kernels.common.compiled.compiler import find_compiler
from quantizers.kernels.common.compiled.definitions import definitions

KERNELS = Path(__file__).parents[2] / "kernels"
HOME = KERNELS / "common" / "constants.py"
VALUES = {name: value for name, value in vars(constants).items() if name.isupper()}
CPP = [path for pattern in ("*.cpp", "*.h") for path in KERNELS.rglob(pattern)]
LITERAL = re.compile(r"(?<![\w.])(0[xX][\da-fA-F.]+(?:[pP][+-]?\d+)?|\d+\.?\d*(?:[eE][+-]?\d+)?)[fFuUlL]*")


def telling_values() -> set[float]:
    """The constants whose values say what they are; an 8 or a ¼ may be anything."""
    flat = [part for value in VALUES.values() for part in (value if isinstance(value, tuple) else (value,))]
    return {value for value in flat if not 0.01 < value < 10_000}


def literals_of_cpp(text: str) -> Iterator[float]:
    for found in LITERAL.finditer(re.sub(r"//.*", "", text)):
        literal = found[1]
        yield float.fromhex(literal) if literal[:2].lower() == "0x" else float(literal)


def literals_of_python(text: str) -> Iterator[float]:
    """The numbers, and powers of numbers such as 2.0**-53."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            yield float(node.value)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
            try:
                yield ast.literal_eval(node.left) ** ast.literal_eval(node.right)
            except ValueError:  # of names
                continue


def test_literals_are_found() -> None:
    text = "x = 0x1p-24 * 1e37; y = 0xD2511F53u + 1e-3f; z2 = 0.25;  // 5"
    assert list(literals_of_cpp(text)) == [2.0**-24, 1e37, 0xD2511F53, 1e-3, 0.25]
    assert {2.0**-53, 0xD2511F53} < set(literals_of_python("x = 2.0**-53\ny = tl.constexpr(0xD2511F53)\nz = y**2"))


def test_each_is_written_once() -> None:
    telling = telling_values()
    assert {constants.LARGEST_SCORE, constants.OPPOSITE, constants.LEVEL_MARGIN} < telling
    assert telling <= set(literals_of_python(HOME.read_text()))
    for path in KERNELS.rglob("*.py"):
        again = telling & set(literals_of_python(path.read_text()))
        assert not again or path == HOME, f"{path} writes {again} again"
    for path in CPP:
        again = telling & set(literals_of_cpp(path.read_text()))
        assert not again, f"{path} writes {again} again"


def test_cpp_uses_each_and_no_other() -> None:
    used = {name for path in CPP for name in re.findall(r"\bQUANTIZERS_(\w+)", path.read_text())}
    assert used == set(VALUES)


def test_a_changed_constant_makes_another_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def name() -> str:
        return build.library_name("x86_64", "portable")

    names = {name()}
    assert name() in names
    for constant, value in VALUES.items():
        with monkeypatch.context() as patch:
            patch.setattr(constants, constant, value[::-1] if isinstance(value, tuple) else value / 3)
            names.add(name())
    assert len(names) == 1 + len(VALUES)


def test_the_compiler_is_given_the_definitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def run(given: list[list[str]]) -> None:
        commands.extend(given)
        for command in given:
            Path(command[-1]).touch()

    monkeypatch.setattr(build, "_run_all", run)
    monkeypatch.setattr(constants, "LARGEST_RATIO", 50.0)
    build.compile_library(["c++"], "portable", tmp_path / "library.so")
    compiling = [command for command in commands if "-c" in command]
    assert compiling
    for command in compiling:
        assert "-DQUANTIZERS_LARGEST_RATIO=0x1.9000000000000p+5" in command


def test_cpp_sees_the_same_values(tmp_path: Path) -> None:
    """A number in decimal, with enough digits to be exact, equals the macro at compile time."""
    try:
        command = find_compiler()
    except build.CompilationError as error:
        pytest.skip(str(error))
    lines = []
    for name, value in VALUES.items():
        if isinstance(value, tuple):
            lines.append(f"constexpr unsigned {name}[] = QUANTIZERS_{name};")
            lines += [f"static_assert({name}[{place}] == {part}u);" for place, part in enumerate(value)]
        else:
            lines.append(f"static_assert(QUANTIZERS_{name} == {value!r});")
    source = tmp_path / "constants.cpp"
    source.write_text("\n".join(lines))
    command = [*command, *build.FLAGS, *definitions(), "-fsyntax-only", str(source)]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
