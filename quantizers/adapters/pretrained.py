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

from quantizers.adapters.adapter import NOTHING
from quantizers.adapters.finding import plugged
from quantizers.adapters.notes import Entry, read_notes, write_notes
from quantizers.adapters.plugging import plug_in
from quantizers.base import Quantizer
from quantizers.configuration import rebuild
from quantizers.saving import import_safetensors


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
            gradient function of your own; see `quantizers.configuration.rebuild`.

    Returns: the model, in evaluation mode. Its own quantizer is not in the folder: `unplug` puts back one with
        first weights.

    Raises: FileNotFoundError for a folder that is not there, or without safetensors; ValueError for a model
        without a quantizer of ours, and for weights that do not fit; ImportError without safetensors.
    """
    path = Path(folder, options.get("subfolder", ""))
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is no folder; a model on the hub is one after snapshot_download")
    with _without_reports(cls):  # the model's own quantizer has no weights there, and ours are read below
        model = cls.from_pretrained(folder, **options)
    notes = read_notes(model)
    if not notes:
        raise ValueError(
            f"the model in {path} was saved without a quantizer of ours: {cls.__name__}.from_pretrained loads it"
        )
    for at, entry in notes.items():
        plug_in(model, _rebuilt(at, entry, overrides), at=at, contract=entry["contract"])
        _restore(model.get_submodule(at), f"{at}.", path, options.get("variant"))
    return model.eval()


def _rebuilt(at: str, entry: Entry, overrides: Mapping[str, Any]) -> Quantizer:
    try:
        return rebuild(entry["quantizer"], **overrides)
    except ValueError as error:
        raise ValueError(
            f"the quantizer at {at!r} cannot be built, with overrides={dict(overrides)}: {error}"
        ) from error


def _restore(adapter: nn.Module, prefix: str, folder: Path, variant: str | None) -> None:
    """Load what the files hold under a prefix. Raises: ValueError for weights that do not fit."""
    weights = dict(_tensors(folder, prefix, variant))
    try:
        adapter.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"the weights under {prefix!r} in {folder} do not fit: {error}") from error


def _tensors(folder: Path, prefix: str, variant: str | None) -> Iterator[tuple[str, Tensor]]:
    """The tensors under a prefix in the model's files: one, or pieces, `model.fp16-00001-of-00002.safetensors`."""
    pattern = r"[^.]+" + (rf"\.{re.escape(variant)}(-\d+-of-\d+)?" if variant else "") + r"\.safetensors"
    files = sorted(file for file in folder.iterdir() if re.fullmatch(pattern, file.name))
    if not files:
        of = f" of variant {variant!r}" if variant else ""
        raise FileNotFoundError(f"there are no safetensors{of} in {folder}; save with safe_serialization=True")
    for file in files:
        for name, tensor in import_safetensors().torch.load_file(file).items():
            if name.startswith(prefix):
                yield name.removeprefix(prefix), tensor


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
