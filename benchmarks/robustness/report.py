"""The table on the terminal and in Markdown, and the JSON with everything. Both come from the JSON's record."""

from typing import Any

import torch

from benchmarks import machine
from benchmarks.kernels.report import installed_versions
from benchmarks.kernels.rivals import PEER
from benchmarks.machine import caption
from benchmarks.robustness.run import SEED, Results
from benchmarks.robustness.subjects import METHODS, OURS, peer_call
from benchmarks.sheets import NOTHING, Sheet, markdown_rows

TITLE = "What a training can meet"
EXPLANATION = (
    f"In each cell: ours above, {PEER} below; {NOTHING}: the quantizer has nothing that the check asks about. 64 "
    "channels and 1024 codes, FSQ with levels 8, 5, 5, 5; float32 but where another type is named; each check on "
    "new modules, with the same data for both."
)


def full_record(results: Results) -> dict[str, Any]:
    """The JSON: where and with what, and every check with its sentence and answers."""
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
    """Checks down, methods across; a line of each cell for each library."""
    rows = [[each["title"], *(_cell(each["answers"], method) for method in METHODS)] for each in record["checks"]]
    return Sheet(TITLE, ["", *METHODS], rows)


def notes(record: dict[str, Any]) -> list[str]:
    """Sentences on what was left out."""
    return record["left_out"] + (["Interrupted: the rest was not checked."] if record["interrupted"] else [])


def markdown(record: dict[str, Any]) -> str:
    """The table, what each check does and what avoids a failure in the peer, and a line on where it was run."""
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
