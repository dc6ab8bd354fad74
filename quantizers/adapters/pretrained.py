"""Models with quantizers plugged in, saved and loaded as diffusers and transformers do.

`plug_in` leaves a note in the model's configuration, so that `model.save_pretrained(folder)` writes which
quantizers stand where, beside their weights; `from_pretrained` reads it.
"""

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from quantizers.adapters.bases.adapter import NOTHING
from quantizers.adapters.finding import plugged
from quantizers.adapters.notes import Entry, read_notes, write_notes
from quantizers.adapters.plugging import plug_in
from quantizers.core.base import Quantizer
from quantizers.serialization.configuration import rebuild
from quantizers.serialization.saving import import_safetensors


def save_pretrained(model: Any, folder: str | os.PathLike[str], **options: Any) -> None:
    """`model.save_pretrained(folder)`, with the numbers of the quantizers that were assigned since `plug_in`.

    Raises: ValueError where nothing is plugged in.
    """
    if not plugged(model):
        raise ValueError(f"model is {type(model).__name__}, which has no quantizer plugged in")
    write_notes(model)
    model.save_pretrained(folder, **options)


def from_pretrained(
    cls: Any, folder: str | os.PathLike[str], *, overrides: Mapping[str, Any] = NOTHING, **options: Any
) -> Any:
    """`cls.from_pretrained(folder)` of a model that was saved with quantizers plugged in: with them again.

    Args:
        cls: the model's class, as diffusers.VQModel. folder: what `save_pretrained` wrote; of a model on the hub,
            what `huggingface_hub.snapshot_download` returned. options: those of `cls.from_pretrained`.
        overrides: options of each quantizer that are to be others than saved, or that JSON could not tell, as a
            gradient function of your own; see `quantizers.rebuild`.

    Returns: the model, in evaluation mode; with `output_loading_info=True` a tuple of it and its library's
    report. Its
        own quantizer is not in the folder: `unplug` puts back one with first weights.

    The model's own `from_pretrained` knows nothing of ours: it gives the model with its own quantizer, untrained,
    and its library warns of weights that are missing and not used. So does a pipeline of diffusers, which
    therefore takes the loaded model as a component:

        vqvae = from_pretrained(diffusers.VQModel, folder, subfolder="vqvae")
        pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, vqvae=vqvae)

    Raises: FileNotFoundError for a folder that is not there, or without safetensors; TypeError for one that is no
        path; ValueError for a model without a quantizer of ours, and for weights that do not fit; ImportError
        without safetensors.
    """
    if not isinstance(folder, str | os.PathLike):
        raise TypeError(f"folder is {folder!r}, expected the path of what save_pretrained wrote")
    path = Path(folder, options.get("subfolder", ""))
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is no folder; a model on the hub is one after snapshot_download")
    with _without_reports(cls):  # the model's own quantizer has no weights there, and ours are read below
        loaded = cls.from_pretrained(folder, **options)
    model, report = loaded if isinstance(loaded, tuple) else (loaded, None)
    notes = read_notes(model)
    if not notes:
        raise ValueError(
            f"the model in {path} was saved without a quantizer of ours: {cls.__name__}.from_pretrained loads it"
        )
    files = _files(path, options.get("variant"))
    for at, entry in notes.items():
        plug_in(model, _rebuilt(at, entry, overrides), at=at, contract=entry["contract"])
        prefix = _prefix(model.get_submodule(at), at, entry, files)
        if prefix is None:
            raise ValueError(
                f"the configuration in {path} tells of a quantizer at {at!r}, whose weights are in none of the "
                f"files: the model was saved without it, and {cls.__name__}.from_pretrained loads it"
            )
        _restore(model.get_submodule(at), prefix, path, files)
        _adjust(report, (f"{at}.", prefix))
    return model.eval() if report is None else (model.eval(), report)


def _rebuilt(at: str, entry: Entry, overrides: Mapping[str, Any]) -> Quantizer:
    try:
        return rebuild(entry["quantizer"], **overrides)
    except ValueError as error:
        raise ValueError(
            f"the quantizer at {at!r} cannot be built, with overrides={dict(overrides)}: {error}"
        ) from error


def _prefix(adapter: nn.Module, at: str, entry: Entry, files: Mapping[str, Path]) -> str | None:
    """What the names of an adapter's tensors begin with in the files; None where they have none of them.

    That is its path in the model that was saved, which may have or lack the name of a base model; or the end of
    its path, where the library saves parts under names of its own, as transformers those of Emu3.
    """
    parts = at.split(".")
    prefixes = [f"{entry['at']}.", *(".".join(parts[place:]) + "." for place in range(len(parts)))]
    names = adapter.state_dict().keys()
    if not names:
        return prefixes[0]
    return next((prefix for prefix in prefixes if any(prefix + name in files for name in names)), None)


def _restore(adapter: nn.Module, prefix: str, folder: Path, files: Mapping[str, Path]) -> None:
    """Load what the files hold under a prefix. Raises: ValueError for weights that do not fit."""
    weights = dict(_tensors(prefix, files))
    try:
        adapter.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"the weights under {prefix!r} in {folder} do not fit: {error}") from error


def _adjust(report: Any, prefixes: tuple[str, ...]) -> None:
    """Take out of a library's report of a load, where there is one, what was loaded after it."""
    for kind in ("missing_keys", "unexpected_keys") if report is not None else ():
        left = [name for name in report[kind] if not name.startswith(prefixes)]
        report[kind] = type(report[kind])(left)


def _tensors(prefix: str, files: Mapping[str, Path]) -> Iterator[tuple[str, Tensor]]:
    """The tensors under a prefix, with the rest of their names."""
    for name, file in files.items():
        if name.startswith(prefix):
            with import_safetensors().safe_open(file, framework="pt") as opened:
                yield name.removeprefix(prefix), opened.get_tensor(name)


def _files(folder: Path, variant: str | None) -> dict[str, Path]:
    """The file of each tensor of a model: one for all, or pieces, `model.fp16-00001-of-00002.safetensors`.

    Raises: FileNotFoundError where there is none.
    """
    pattern = r"[^.]+" + (rf"\.{re.escape(variant)}(-\d+-of-\d+)?" if variant else "") + r"\.safetensors"
    files = sorted(file for file in folder.iterdir() if re.fullmatch(pattern, file.name))
    if not files:
        of = f" of variant {variant!r}" if variant else ""
        raise FileNotFoundError(f"there are no safetensors{of} in {folder}; save with safe_serialization=True")
    places: dict[str, Path] = {}
    for file in files:
        with import_safetensors().safe_open(file, framework="pt") as opened:
            places |= dict.fromkeys(opened.keys(), file)
    return places


@contextmanager
def _without_reports(cls: Any) -> Iterator[None]:
    """Silence what the model's library prints of weights that are missing or not used."""
    names = {base.__module__.partition(".")[0] for base in cls.__mro__}  # a user's own class derives from theirs
    libraries = [sys.modules[name].utils.logging for name in ("diffusers", "transformers") if name in names]
    before = [logging.get_verbosity() for logging in libraries]
    for logging in libraries:
        logging.set_verbosity_error()
    try:
        yield
    finally:
        for logging, verbosity in zip(libraries, before, strict=True):
            logging.set_verbosity(verbosity)
