"""What `fit` writes into its folder."""

import dataclasses
from pathlib import Path
from typing import Any

import torch

from quantizers.cli.assigning import Assigned, assign_ids, stream_codes
from quantizers.cli.files import NAMES, staged, write_json
from quantizers.cli.picture import Page, draw, percent
from quantizers.cli.settings import FitSettings, Prepared
from quantizers.cli.summary import bits, skipped
from quantizers.fitting import FitReport
from quantizers.fitting.report import OnProgress
from quantizers.vectors.sampling import sample
from quantizers.version import __version__

DRAWN = 5000  # embeddings in the picture
MOST_BARS = 4  # of prefixes


def write_results(
    settings: FitSettings, prepared: Prepared, report: FitReport, progress: OnProgress
) -> tuple[Assigned, list[str]]:
    """Encode all vectors and write the results; the folder keeps earlier ones until all are complete.

    Returns: what the codes look like, and the names of the files.
    """
    with staged(settings.out) as folder:
        table = folder / f"ids.{settings.format}"
        assign = stream_codes if prepared.streams else assign_ids
        assigned = assign(prepared, folder, table, settings.batch_size, progress)
        draw(folder / "report.png", _page(settings, prepared, report, assigned))
        written = [*(path.name for path in folder.iterdir()), "report.json"]
        write_json(folder / "report.json", _record(settings, prepared, report, assigned, sorted(written)))
    for name in set(NAMES) - set(written):
        (settings.out / name).unlink(missing_ok=True)  # of an earlier fit with other files
    settings.fitted.unlink(missing_ok=True)
    return assigned, written


def _record(
    settings: FitSettings, prepared: Prepared, report: FitReport, assigned: Assigned, files: list[str]
) -> dict[str, Any]:
    """The content of report.json."""
    quantizer = prepared.quantizer
    return {
        "settings": {**dataclasses.asdict(settings), "out": str(settings.out)},
        "quantizer": repr(quantizer),
        "dim": quantizer.dim,
        "codebook_sizes": list(quantizer.codebook_sizes),
        "bits_per_vector": bits(quantizer),
        "fit": report.as_dict(),
        "collisions": {
            "policy": prepared.collisions,
            "share_of_items_before": assigned.before,
            "share_of_items_after": assigned.after,
            "share_of_items_by_number_of_first_codes": list(assigned.shares),
        },
        "files": files,
        "versions": {"quantizers": __version__, "torch": torch.__version__},
    }


def _page(settings: FitSettings, prepared: Prepared, report: FitReport, assigned: Assigned) -> Page:
    drawn = sample(prepared.vectors, DRAWN, settings.seed).rows
    quantizer = prepared.quantizer
    first = quantizer.encode(drawn.to(settings.device)).reshape(len(drawn), -1)[:, 0]
    sizes = " × ".join(map(str, quantizer.codebook_sizes))
    subtitle = [
        f"{settings.quantizer}: {sizes} codes, {bits(quantizer):.4g} bits per vector",
        f"error {percent(report.relative_error)} of the variance",
    ]
    return Page(
        f"{Path(settings.embeddings).name}: {report.count:,} vectors of {quantizer.dim} channels",
        "; ".join([*subtitle, *skipped(report)]),
        [counts.numpy() for counts in assigned.counts],
        [_shares(report, codebook) for codebook in range(quantizer.num_codebooks)],
        drawn.cpu().numpy(),
        first.cpu().numpy(),
        _bars(prepared, assigned),
    )


def _shares(report: FitReport, codebook: int) -> list[float]:
    """The inertia of each pass over all vectors, or of all passes where none was, as a share of the variance."""
    passes = [each for each in report.history if each.codebook == codebook]
    passes = [each for each in passes if each.vectors == report.count] or passes
    return [each.inertia / report.variance if report.variance else 0.0 for each in passes]


def _bars(prepared: Prepared, assigned: Assigned) -> list[tuple[str, float]]:
    if assigned.before is None or assigned.after is None:
        return []
    bars = [
        (f"first {n} codes" if n > 1 else "first code", share)
        for n, share in enumerate(assigned.shares[:MOST_BARS], 1)
    ]
    bars.append(("whole ID,\nas encoded", assigned.before))
    return [*bars, (f"whole ID,\n{prepared.collisions}", assigned.after)]
