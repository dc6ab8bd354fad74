"""The tables of docs/installing.md, from the JSON of a run."""

from typing import Any

from benchmarks.sheets import markdown_rows
from benchmarks.versions import report


def tables(record: dict[str, Any]) -> str:
    """Return the tables in Markdown, with a line on what was run and where."""
    where, commit = record["machine"], (record["revision"] or {}).get("commit", "")
    found = [line for sheet in report.sheets(record) for line in (*markdown_rows(sheet), "")]
    source = f"{where['processor']}, {where['platform']}, one thread, {record['date'][:10]}, commit {commit[:7]}."
    return "\n".join([*found, source])
