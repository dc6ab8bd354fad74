"""vector-quantize-pytorch's own tests, run on its classes with this library's quantizers plugged in.

    git clone https://github.com/lucidrains/vector-quantize-pytorch
    python -m benchmarks.peers.vector_quantize_pytorch vector-quantize-pytorch/tests

Each class that the tests build is replaced by the adapter that `plug_in` returns for it. Needs the installed
package, pytest and x-transformers. Prints a table of passing tests, and writes it as JSON with the reason of each
failure.
"""

import argparse
import multiprocessing
import re
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.files import write_json
from benchmarks.machine import record
from quantizers import plug_in
from quantizers.adapters.recognition import contract_of

OWN, ALIKE, KEEPING = "own", "like for like", "like for like, keep_codebook"
NAMES = ("vq", "simvq", "rotation_vq", "fsq", "gumbel", "residual")
COLUMNS = (OWN, ALIKE, *NAMES, KEEPING)
OUT = Path("benchmarks/results/peers-cpu/vector_quantize_pytorch.json")

Choice = tuple[str, dict[str, Any]]
"""A quantizer's name and its options."""


def of_vector_quantize(original: Any) -> Choice:
    """Return the counterpart of a VectorQuantize."""
    state = original._codebook
    if original.directional_reparam:
        return "diveq", {}
    if state.vq_bridge is not None:
        return "vqbridge", {}
    gradient = "rotation" if original.rotation_trick else "straight_through"
    options = {"gradient": gradient, "commitment_weight": original.commitment_weight}
    if not state.ema_update:
        return "vq", options
    return "ema_vq", {**options, "decay": state.decay, "epsilon": state.eps}


def of_residual(original: Any) -> Choice:
    """Return the counterpart of a ResidualVQ, with all stages like its first."""
    if original.implicit_neural_codebook:
        return "qinco", {}
    if original.diveq:
        return "residual", {"quantizer": "diveq"}
    name, options = of_vector_quantize(original.layers[0])
    return "residual", {"quantizer": name, **options}


ALIKES: dict[str, Callable[[Any], Choice]] = {
    "VectorQuantize": of_vector_quantize,
    "ResidualVQ": of_residual,
    "SimVQ": lambda original: ("simvq", {}),
    "ResidualSimVQ": lambda original: ("residual", {"quantizer": "simvq"}),
    "FSQ": lambda original: ("fsq", {}),
    "ResidualFSQ": lambda original: ("residual_fsq", {}),
    "FSP": lambda original: ("fsp", {}),
    "LFQ": lambda original: ("bsq" if original.spherical else "lfq", {}),
    "ResidualLFQ": lambda original: ("residual", {"quantizer": "lfq"}),
    "RandomProjectionQuantizer": lambda original: ("random_projection", {}),
}


def contract_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The outermost modules of a known contract in a model, by path."""
    found: dict[str, nn.Module] = {}
    for path, module in model.named_modules():
        inside = any(path.startswith(f"{outer}.") or outer == "" for outer in found)
        if not inside and contract_of(module) is not None:
            found[path] = module
    return found


def swapped(model: nn.Module, column: str) -> nn.Module:
    """Replace each module with a known contract by a quantizer of the column."""
    for path, module in contract_modules(model).items():
        name, options = ALIKES[type(module).__name__](module) if column in (ALIKE, KEEPING) else (column, {})
        model = plug_in(model, name, at=path, keep_codebook=column == KEEPING, **options)
    return model


class Plugin:
    """Patches the package for one run of its tests, and records their outcomes.

    A test that builds no class with a known contract says nothing about this library, so it is left out.
    """

    def __init__(self, column: str) -> None:
        self.column = column
        self.reasons: dict[str, str | None] = {}
        self._swaps = False

    def pytest_configure(self) -> None:
        """Patch each class of the package, before the tests are imported, to be replaced after construction."""
        import vector_quantize_pytorch as package

        for name, value in vars(package).copy().items():
            if isinstance(value, type) and issubclass(value, nn.Module) and self.column != OWN:
                setattr(package, name, self._building(value))

    def pytest_runtest_setup(self) -> None:
        """Seed each test, so that a run can be repeated."""
        torch.manual_seed(0)
        self._swaps = self.column == OWN

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Record the first line of a failure."""
        if not self._swaps:
            return
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            lines = (str(report.longrepr) if crash is None else crash.message).splitlines()
            self.reasons[report.nodeid] = re.sub(r" at 0x\w+", "", lines[0]) if lines else "failed"
        elif report.when == "call":
            self.reasons.setdefault(report.nodeid, "skipped" if report.skipped else None)

    def _building(self, of: type[nn.Module]) -> Callable[..., nn.Module]:
        def build(*args: Any, **options: Any) -> nn.Module:
            original = of(*args, **options)
            self._swaps = self._swaps or bool(contract_modules(original))
            return swapped(original, self.column)

        return build


def run(tests: Path, column: str) -> dict[str, str | None]:
    """Return the tests by name with the reason of each failure, or None for a passing test."""
    import pytest

    torch.set_num_threads(1)
    plugin = Plugin(column)
    pytest.main([str(tests), "-q", "--no-header", "--tb=line", "-p", "no:cacheprovider"], plugins=[plugin])
    return plugin.reasons


def table(results: dict[str, dict[str, str | None]]) -> str:
    """Return how many of the counted tests pass, and the failures of the column "like for like"."""
    rows = [f"| {column} | {_passed(reasons)} of {len(reasons)} |" for column, reasons in results.items()]
    lines = ["| plugged in | pass |", "|---|---|", *rows]
    failures = Counter(reason for reason in results.get(ALIKE, {}).values() if reason is not None)
    return "\n".join([*lines, "", *(f"{count} × {reason}" for reason, count in failures.most_common())])


def _passed(reasons: dict[str, str | None]) -> int:
    return sum(reason is None for reason in reasons.values())


def main() -> None:
    """Run the tests and write the results: see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("tests", type=Path, help="the folder of the package's tests, or one test file")
    parser.add_argument("--columns", nargs="+", choices=COLUMNS, default=list(COLUMNS))
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    results = {}
    for column in given.columns:  # one process for each, since the tests keep what they import
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            results[column] = pool.submit(run, given.tests, column).result()
    print(table(results))
    packages = {name: version(name) for name in ("vector-quantize-pytorch", "x-transformers")}
    about = record(torch.device("cpu"))
    about["versions"].update(packages)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    passed = {column: [_passed(reasons), len(reasons)] for column, reasons in results.items()}
    write_json(given.out, {**about, "passed": passed, "failures": _failures(results)})


def _failures(results: dict[str, dict[str, str | None]]) -> dict[str, dict[str, str]]:
    return {
        column: {Path(test).name: reason for test, reason in reasons.items() if reason is not None}
        for column, reasons in results.items()
    }


if __name__ == "__main__":
    main()
