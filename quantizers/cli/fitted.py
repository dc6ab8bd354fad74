"""A fit that is complete while its results are not: kept on disk until the results are written."""

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from quantizers.cli.files import written_whole
from quantizers.cli.ranks import is_first, of_all_ranks
from quantizers.cli.settings import FitSettings, Prepared
from quantizers.fitting import CodebookUse, FitReport, Pass
from quantizers.serialization.configuration import configuration

SETTINGS = ("method", "epochs", "batch_size", "seed", "column")  # on which the codes depend


def fitted_once(settings: FitSettings, prepared: Prepared, fit: Callable[[], FitReport]) -> FitReport:
    """The report of `fit`, or that of an earlier call that ended before the results were written.

    Either way the codebooks of the prepared quantizer are fitted at the end, on the first rank.
    """
    key = _key(settings, prepared)
    stored = _read(settings.fitted, key) if is_first() else None
    if of_all_ranks("stored" if stored else None)[0] is None:
        report = fit()
        if is_first():
            state = prepared.quantizer.state_dict()
            content = io.BytesIO()  # torch does not say why it cannot write a file
            torch.save({"key": key, "quantizer": state, "report": report.as_dict()}, content)
            with written_whole(settings.fitted) as temporary:
                temporary.write_bytes(content.getbuffer())
        return report
    if stored is None:  # on another rank, which has nothing to do any more
        return FitReport(0, 0, (), 0.0, 0.0, (), (), 0.0)
    prepared.quantizer.load_state_dict(stored["quantizer"])
    return _report(stored["report"])


def _key(settings: FitSettings, prepared: Prepared) -> dict[str, Any]:
    """What must be equal for codes to be the same."""
    file = Path(settings.embeddings).stat()
    return {
        **{name: getattr(settings, name) for name in SETTINGS},
        "embeddings": [str(Path(settings.embeddings).resolve()), file.st_size, file.st_mtime_ns],
        "quantizer": repr(configuration(prepared.quantizer)),
    }


def _read(path: Path, key: dict[str, Any]) -> dict[str, Any] | None:
    """A stored fit with this key; None where there is none that can be read."""
    try:
        stored: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # no file, an incomplete one, or one of another version: the fit begins again
        return None
    return stored if stored.get("key") == key else None


def _report(stored: dict[str, Any]) -> FitReport:
    fields = {field.name: stored[field.name] for field in dataclasses.fields(FitReport)}
    fields["skipped_rows"] = tuple(fields["skipped_rows"])
    fields["codebooks"] = tuple(CodebookUse(**use) for use in fields["codebooks"])
    fields["history"] = tuple(Pass(**each) for each in fields["history"])
    return FitReport(**fields)
