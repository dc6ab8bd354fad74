"""Run the test suites of diffusers and transformers, and write the table: see README.md.

python -m benchmarks.peers --transformers FOLDER --diffusers FOLDER --quantizers vq,fsq --modes constructor
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.peers.plugin import MODES

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
TESTS = {
    "diffusers": ["tests/models/autoencoders/test_models_vq.py"],
    "transformers": [str(HERE / "testers.py")],
}
Outcomes = dict[str, str]


def main() -> None:
    options = _arguments()
    quantizers = options.quantizers.split(",")
    report: dict[str, Any] = {"versions": _versions(), "selected": options.select, "rows": []}
    for library, folder in (("diffusers", options.diffusers), ("transformers", options.transformers)):
        if folder is None:
            continue
        own = run(library, folder, None, MODES[0], options.select)
        for mode in options.modes.split(","):
            for quantizer in quantizers:
                plugged = run(library, folder, quantizer, mode, options.select)
                report["rows"] += list(rows(library, quantizer, mode, own, plugged))
                print(table(report["rows"]), flush=True)
                _write(options.out, report)


def run(library: str, folder: Path, quantizer: str | None, mode: str, select: str) -> Outcomes:
    """Return the outcome of each test of a library by name."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "outcomes.json"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "benchmarks.peers.plugin", "-p", "no:cacheprovider"]
        command += ["--library", library, "--mode", mode, "--outcomes", str(out), "-k", select, "--tb=no"]
        command += ["--rootdir", str(folder), "-c", os.devnull, "-W", "ignore", *TESTS[library]]
        if quantizer is not None:
            command += ["--plug", quantizer]
        path = os.pathsep.join([str(folder), str(ROOT)])
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)
        if done.returncode not in (0, 1):  # all passed, or some failed
            raise SystemExit(f"the tests of {library} did not run:\n{done.stdout[-4000:]}")
        outcomes: Outcomes = json.loads(out.read_text(encoding="utf-8"))
    return {name.rpartition("/")[2].partition("::")[2]: outcome for name, outcome in outcomes.items()}


def rows(library: str, quantizer: str, mode: str, own: Outcomes, plugged: Outcomes) -> Iterator[dict[str, Any]]:
    """Yield a row for each test class: of the tests that pass with the model's own quantizer, how many pass when
    plugged.
    """
    for group in sorted({name.partition("::")[0] for name in own}):
        passing = [name for name, outcome in own.items() if outcome == "passed" and name.startswith(f"{group}::")]
        if not passing:
            continue
        failed = [name for name in passing if plugged.get(name) == "failed"]
        yield {
            "library": library,
            "tests": group,
            "quantizer": quantizer,
            "mode": mode,
            "run": len(passing),
            "passed": sum(plugged.get(name) == "passed" for name in passing),
            "failed": [name.partition("::")[2] for name in failed],
        }


def table(found: list[dict[str, Any]]) -> str:
    """Return Markdown: the passed tests, the tests run, and the names of those that fail."""
    lines = ["| tests | quantizer | mode | passed | of | failed |", "|---|---|---|---|---|---|"]
    for row in found:
        names = ", ".join(f"`{name}`" for name in row["failed"])
        cells = (row["tests"], row["quantizer"], row["mode"], row["passed"], row["run"], names)
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def _write(out: Path, report: dict[str, Any]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "peers.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    (out / "README.md").write_text(
        f"{versions}; tests selected by `{report['selected']}`\n\n{table(report['rows'])}\n", encoding="utf-8"
    )


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "transformers", "diffusers", "accelerate")}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--transformers", type=Path, help="a checkout, or an unpacked source distribution")
    parser.add_argument("--diffusers", type=Path, help="a checkout")
    parser.add_argument("--quantizers", default="vq,fsq,simvq", help="names, separated by commas")
    parser.add_argument("--modes", default=",".join(MODES), help="names, separated by commas")
    parser.add_argument("--select", default="test", help="pytest's -k")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/peers-cpu")
    return parser.parse_args()


if __name__ == "__main__":
    main()
