"""The table on the terminal and in Markdown, and the JSON with all results. The tables come from the JSON's
record.
"""

from typing import Any

import torch

from benchmarks import machine
from benchmarks.kernels.report import installed_versions
from benchmarks.kernels.rivals import PEER
from benchmarks.machine import caption
from benchmarks.robustness.run import SEED, Results
from benchmarks.robustness.subjects import METHODS, OURS, peer_call
from benchmarks.sheets import NOTHING, Sheet, markdown_rows

TITLE = "Behaviour under difficult inputs and conditions"
EXPLANATION = (
    f"Each cell shows this library above and {PEER} below; {NOTHING} means that the check does not apply. All "
    "have 64 channels and 1024 codes, except FSQ with levels 8, 5, 5, 5. The dtype is float32 unless another is "
    "named. Each check builds new modules and uses the same data for both libraries."
)


def full_record(results: Results) -> dict[str, Any]:
    """Return the JSON: machine and versions, and every check with its description and results."""
    where = machine.record(torch.device("cpu"))
    where["versions"] |= {name: version for name, version in installed_versions().items() if name == PEER}
    return {
        "benchmark": "robustness",
        "settings": {"seed": SEED, "peer": {method: peer_call(method) for method in METHODS}},
        **where,
        "checks": [
            {
                "check": result.check.key,
                "title": result.check.title,
                "does": result.check.does,
                "note": result.check.note,
                "answers": result.values,
                "failures": result.failures,
            }
            for result in results.done
        ],
        "left_out": results.left_out,
        "interrupted": results.interrupted,
    }


def sheet(record: dict[str, Any]) -> Sheet:
    """Return a table with a row per check and a column per method; each cell has one line per library."""
    rows = [[each["title"], *(_cell(each["answers"], method) for method in METHODS)] for each in record["checks"]]
    return Sheet(TITLE, ["", *METHODS], rows)


def notes(record: dict[str, Any]) -> list[str]:
    """Return sentences on what was left out."""
    return record["left_out"] + (
        ["Interrupted: the remaining checks were not run."] if record["interrupted"] else []
    )


def markdown(record: dict[str, Any]) -> str:
    """Return the table, a description of each check, and a line on the machine."""
    lines = [f"**{TITLE}**", "", *markdown_rows(sheet(record)), "", EXPLANATION, ""]
    lines += [f"- **{each['title']}**: {each['does']} {each['note']}".rstrip() for each in record["checks"]]
    lines += ["", f"{PEER} is called as:", ""]
    lines += [f"- {method}: `{call}`" for method, call in record["settings"]["peer"].items()]
    lines += ["", *(f"{sentence}\n" for sentence in notes(record))]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return "\n".join([*lines, f"{caption(record)}. Versions: {versions}."]) + "\n"


def _cell(answers: dict[str, dict[str, Any]], method: str) -> str:
    return "\n".join(_words(answers[library][method]) for library in (OURS, PEER) if library in answers)


def _words(answer: float | str | None) -> str:
    if answer is None:
        return NOTHING
    return answer if isinstance(answer, str) else f"{answer:.3g}"
