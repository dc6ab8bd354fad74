"""The tests that stand for all: what a release of PyTorch, Python or NumPy can break."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.errors import InputError

PROFILE = "quick"  # of hypothesis, see tests/conftest.py: a third of the usual examples for each law
OPTIONS = ("-p", "no:cacheprovider", "--tb=short", f"--hypothesis-profile={PROFILE}")

REQUIREMENTS = (
    "constriction>=0.5",
    "huggingface-hub>=1.0",
    "hypothesis>=6.100",
    "onnx>=1.17",
    "onnxruntime>=1.20",
    "onnxscript>=0.5",
    "pytest>=8.2",
    "safetensors>=0.4",
)
"""What these tests need besides torch, numpy and triton, of the extra `test`."""


@dataclass(frozen=True)
class Part:
    """Tests that one process of pytest runs.

    paths      files and folders below tests/
    selection  an expression for pytest's -k; empty for all tests
    """

    name: str
    paths: tuple[str, ...]
    selection: str = ""

    @property
    def arguments(self) -> tuple[str, ...]:
        """The arguments of pytest."""
        chosen = ("-k", self.selection) if self.selection else ()
        return (*(f"tests/{path}" for path in self.paths), *chosen, *OPTIONS)


PARTS = (
    Part("contract", ("contract",)),
    Part("kernels", ("kernels",)),
    Part("core", ("core",)),
    Part("state", ("state",)),
    Part("methods", ("methods",)),
    Part("serialization", ("serialization",)),
    Part("bitstream", ("bitstream",)),
    Part("compile", tuple(f"graphs/test_{name}.py" for name in ("compile", "functional", "host_sync", "numbers"))),
    Part("export", ("graphs/test_export.py", "graphs/test_tracing.py")),
    # The modules that it starts with Triton's interpreter, but for the two that take as long as all others.
    Part("triton", ("triton/test_interpreted.py",), "rest and not nearest"),
)


def choose(names: Sequence[str]) -> tuple[Part, ...]:
    """Return the parts of these names; all without any. Raises: InputError."""
    known = [part.name for part in PARTS]
    if unknown := [name for name in names if name not in known]:
        raise InputError(f"--parts: got {unknown[0]!r}; expected one of {', '.join(known)}")
    return tuple(part for part in PARTS if not names or part.name in names)
