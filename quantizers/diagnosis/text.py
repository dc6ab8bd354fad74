"""A diagnosis as text of at most 100 columns, and as HTML."""

import html
import textwrap
from collections.abc import Iterable, Sequence

from quantizers.diagnosis.findings import Finding
from quantizers.diagnosis.measures import Measures

WIDTH = 100
COLUMNS = (
    "quantizer", "codes", "vectors", "in use", "perplexity", "lost %", "spread", "of codes", "offset", "gradient"
)  # fmt: skip


def table(measures: Iterable[Measures]) -> str:
    """The measures as text, one line for each quantizer and each of its parts."""
    rows = [COLUMNS, *map(_cells, measures)]
    names, *others = zip(*rows, strict=True)
    widths = [max(map(len, column)) for column in others]
    room = min(max(map(len, names)), WIDTH - sum(width + 2 for width in widths))
    return "\n".join(
        "  ".join([_shortened(row[0], room).ljust(room), *map(str.rjust, row[1:], widths)]).rstrip()
        for row in rows
    )


def finding_lines(number: int, finding: Finding) -> list[str]:
    """A finding in lines of at most `WIDTH` columns; a line of code is never broken."""
    lines = wrapped(f"{number}. {finding.severity.upper()} in {finding.where}: {finding.meaning}", "   ")
    if finding.also:
        lines += wrapped(f"The same holds for {_listed(finding.also)}.", "   ", "   ")
    lines += wrapped(finding.remedy, "   ", "   ")
    if finding.code:
        lines.append(f"       {finding.code}")
    return [*lines, f"   See docs/{finding.link}"]


def wrapped(text: str, after: str = "", before: str = "") -> list[str]:
    """Text in lines; `after` indents the lines after the first, `before` the first."""
    return textwrap.wrap(
        text, WIDTH, initial_indent=before, subsequent_indent=after, break_long_words=False, break_on_hyphens=False
    )


def html_table(measures: Sequence[Measures], findings: Sequence[Finding], note: str) -> str:
    """The same as HTML, for Jupyter."""
    head = "".join(f"<th>{html.escape(column)}</th>" for column in COLUMNS)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in _cells(each)) + "</tr>" for each in measures
    )
    items = "".join(
        f"<li><b>{finding.severity}</b> in {html.escape(', '.join([finding.where, *finding.also]))}: "
        f"{html.escape(finding.meaning)} {html.escape(finding.remedy)}<br>"
        f"<code>{html.escape(finding.code)}</code></li>"
        for finding in findings
    )
    return f"<table><tr>{head}</tr>{body}</table><p>{html.escape(note)}</p><ol>{items}</ol>"


def _cells(measures: Measures) -> tuple[str, ...]:
    return (
        f"  {measures.part}" if measures.part else measures.label,
        _codes(measures),
        f"{measures.vectors:,}",
        "" if measures.codes_in_use is None else f"{measures.codes_in_use:,}",
        _number(measures.perplexity, ",.1f"),
        "" if measures.lost is None else _number(100 * measures.lost, ".3g"),
        _number(measures.vector_spread, ".3g"),
        _number(measures.code_spread, ".3g"),
        _number(measures.offset, ".2f"),
        _passed(measures),
    )


def _shortened(name: str, room: int) -> str:
    return name if len(name) <= room else f"…{name[1 - room :]}"


def _codes(measures: Measures) -> str:
    single = measures.codebook_size is not None and measures.bits < 31
    return f"{measures.codebook_size:,}" if single else f"2^{measures.bits:.3g}"


def _passed(measures: Measures) -> str:
    gradients = measures.gradients
    if gradients is None or not gradients.without:
        return ""
    return f"{gradients.with_quantizer / gradients.without:.2f}"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _listed(names: Sequence[str]) -> str:
    shown = list(names[:6])
    more = len(names) - len(shown)
    return ", ".join([*shown, *([f"{more} more"] if more else [])])
