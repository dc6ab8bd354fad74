"""What a diagnosis found: a sentence with its numbers, and a remedy with its line of code."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

Severity = Literal["problem", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("problem", "warning", "note")
"""A problem loses most of what the quantizer could do; a warning loses some; a note says what cannot be judged."""

PAGE = "troubleshooting.md"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with one quantizer."""

    kind: str
    """A name such as "dead-codes", which is also the section of the page on troubleshooting."""
    severity: Severity
    where: str
    """The quantizer's name and part."""
    meaning: str
    """A sentence or two with the measured numbers."""
    remedy: str
    code: str
    """A line of Python for the remedy, where `model`, `batches` and `optimizer` are the user's; may be empty."""
    also: tuple[str, ...] = ()
    """Other parts of the same quantizer of which the same holds."""

    @property
    def link(self) -> str:
        """The section of the documentation that says more."""
        return f"{PAGE}#{self.kind}"

    def to_dict(self) -> dict[str, Any]:
        """The finding as strings that JSON can hold."""
        return {**asdict(self), "also": list(self.also), "link": self.link}


def joined_by_quantizer(findings: list[tuple[str, Finding]]) -> tuple[Finding, ...]:
    """One finding where parts of one quantizer have the same; the worst first.

    Args: findings: with the name of the quantizer that each is about.
    """
    together: dict[tuple[str, str, str], Finding] = {}
    for name, finding in findings:
        key = name, finding.kind, finding.severity
        first = together.get(key)
        together[key] = finding if first is None else replace(first, also=(*first.also, finding.where))
    return tuple(sorted(together.values(), key=lambda finding: SEVERITIES.index(finding.severity)))
