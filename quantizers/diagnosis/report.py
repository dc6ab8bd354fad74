"""The result of a diagnosis: measures, findings, text, data and a figure."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quantizers.diagnosis.findings import Finding
from quantizers.diagnosis.measures import Measures
from quantizers.diagnosis.text import finding_lines, html_table, table, wrapped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_ROWS = 8


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """What `quantizers.diagnose` found. `print` shows the table of measures, then the findings."""

    measures: tuple[Measures, ...]
    """Of each quantizer in the order of the model; those of its stages, groups, scales or codebooks follow it."""
    findings: tuple[Finding, ...]
    """What is wrong, the worst first; empty if nothing was found."""
    batches: int
    """How many batches the model ran on."""
    no_gradients: str
    """Why no gradients were measured; empty if they were."""

    def __str__(self) -> str:
        lines = [table(self.measures), ""]
        if self.no_gradients:
            lines += [*wrapped(self.no_gradients), ""]
        if not self.findings:
            lines.append("Nothing is wrong that this diagnosis can see.")
        for number, finding in enumerate(self.findings, 1):
            lines += [*finding_lines(number, finding), ""]
        return "\n".join(lines).rstrip("\n")

    def __repr__(self) -> str:
        return (
            f"<Diagnosis of {len(self.measures)} parts in {self.batches} batches: {len(self.findings)} findings>"
        )

    def _repr_html_(self) -> str:
        return html_table(self.measures, self.findings, self.no_gradients)

    def to_dict(self) -> dict[str, Any]:
        """All measures and findings as dicts, lists, strings and numbers, for `json.dumps`."""
        return {
            "batches": self.batches,
            "measures": [each.to_dict() for each in self.measures],
            "findings": [finding.to_dict() for finding in self.findings],
            "no_gradients": self.no_gradients,
        }

    def plot(self, *, max_rows: int = MOST_ROWS) -> "Figure":
        """Draw one row for each quantizer and part that has codes, at most `max_rows`.

        Left: vectors and codes along the two principal axes of the vectors; codes that no vector chose have
        another color. Middle: how often each code is used, from the most to the least frequent. Right, for grids:
        the share of the vectors on each level of each channel.

        Returns: a matplotlib figure, which Jupyter shows and `savefig` writes.

        Raises: ImportError without matplotlib.
        """
        from quantizers.diagnosis.picture import draw

        return draw(self.measures, max_rows)
