"""Save models with quantizers plugged in, and load them, the way diffusers and transformers do.

`plug_in` records the quantizers in the model's configuration. `model.save_pretrained(folder)` therefore writes
them with their weights, and `from_pretrained` reads them.
"""

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from quantizers.adapters.bases.spec import NO_OPTIONS
from quantizers.adapters.model_config import Entry, read_config, write_config
from quantizers.adapters.paths import plugged
from quantizers.adapters.plugging import plug_in
from quantizers.core.base import Quantizer
from quantizers.serialization.configuration import rebuild
from quantizers.serialization.saving import import_safetensors


def save_pretrained(model: Any, folder: str | os.PathLike[str], **options: Any) -> None:
    """`model.save_pretrained(folder)`, with the quantizers' current values of options that you have assigned.

    `model.save_pretrained` itself is enough if no option, such as a weight, was assigned since `plug_in`.

        quantizers.plug_in(model, "simvq")
        quantizers.adapters.save_pretrained(model, "folder")

    Args:
        model: a model of diffusers or transformers with a quantizer plugged in.
        folder: the folder to write.
        options: options of `model.save_pretrained`.

    Raises: ValueError if nothing is plugged in.
    """
    if not plugged(model):
        raise ValueError(f"model is {type(model).__name__}, which has no quantizer plugged in")
    write_config(model)
    model.save_pretrained(folder, **options)


def from_pretrained(
    cls: Any, folder: str | os.PathLike[str], *, overrides: Mapping[str, Any] = NO_OPTIONS, **options: Any
) -> Any:
    """`cls.from_pretrained(folder)` for a model that was saved with quantizers plugged in; it has them again.

        model = quantizers.adapters.from_pretrained(diffusers.VQModel, "folder")

    The model's own `from_pretrained` does not know this library. It would return the model with its own quantizer,
    untrained, and warn of weights that are missing or not used. The same is true of a pipeline of diffusers, so
    pass it the loaded model:

        vqvae = from_pretrained(diffusers.VQModel, folder, subfolder="vqvae")
        pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, vqvae=vqvae)

    Args:
        cls: the model's class, such as diffusers.VQModel.
        folder: the folder that `save_pretrained` wrote; for a model on the hub, the folder that
            `huggingface_hub.snapshot_download` returned.
        overrides: options of each quantizer to change, or that JSON cannot hold, such as a gradient function of
            your own; see `quantizers.rebuild`.
        options: options of `cls.from_pretrained`.

    Returns: the model, in evaluation mode; with `output_loading_info=True` a tuple of it and the report of its
        library. The folder does not contain the model's own quantizer: `unplug` puts back an untrained one.

    Raises: FileNotFoundError for a folder that does not exist or has no safetensors; TypeError for a folder that
        is not a path; ValueError for a model without a quantizer of this library, and for weights that do not fit;
        ImportError without safetensors.
    """
    if not isinstance(folder, str | os.PathLike):
        raise TypeError(f"folder is {folder!r}, expected the path of a folder that save_pretrained wrote")
    path = Path(folder, options.get("subfolder", ""))
    if not path.is_dir():
        raise FileNotFoundError(
            f"{path} is not a folder; for a model on the hub, pass the folder that snapshot_download returns"
        )
    with _without_reports(cls):  # the model's own quantizer has no weights there, and the new one's are read below
        loaded = cls.from_pretrained(folder, **options)
    model, report = loaded if isinstance(loaded, tuple) else (loaded, None)
    entries = read_config(model)
    if not entries:
        raise ValueError(
            f"the model in {path} was saved without a quantizer of this library: load it with "
            f"{cls.__name__}.from_pretrained"
        )
    files = _files(path, options.get("variant"))
    for at, entry in entries.items():
        plug_in(model, _rebuilt(at, entry, overrides), at=at, contract=entry["contract"])
        prefix = _prefix(model.get_submodule(at), at, entry, files)
        if prefix is None:
            raise ValueError(
                f"the configuration in {path} lists a quantizer at {at!r}, whose weights are in none of the "
                f"files: the model was saved without it; load it with {cls.__name__}.from_pretrained"
            )
        _load_weights(model.get_submodule(at), prefix, path, files)
        _adjust_report(report, (f"{at}.", prefix))
    return model.eval() if report is None else (model.eval(), report)


def _rebuilt(at: str, entry: Entry, overrides: Mapping[str, Any]) -> Quantizer:
    try:
        return rebuild(entry["quantizer"], **overrides)
    except ValueError as error:
        raise ValueError(
            f"the quantizer at {at!r} cannot be built, with overrides={dict(overrides)}: {error}"
        ) from error


def _prefix(adapter: nn.Module, at: str, entry: Entry, files: Mapping[str, Path]) -> str | None:
    """The start of the names that an adapter's tensors have in the files; None if the files have none of them.

    It is the adapter's path in the saved model, which may have or lack the name of a base model; or the end of
    that path if the library saves submodules under names of its own, as transformers does for Emu3.
    """
    names_in_path = at.split(".")
    ends = (".".join(names_in_path[start:]) for start in range(len(names_in_path)))
    prefixes = [f"{entry['at']}.", *(f"{end}." for end in ends)]
    names = adapter.state_dict().keys()
    if not names:
        return prefixes[0]
    return next((prefix for prefix in prefixes if any(prefix + name in files for name in names)), None)


def _load_weights(adapter: nn.Module, prefix: str, folder: Path, files: Mapping[str, Path]) -> None:
    """Load the tensors under a prefix in the files. Raises: ValueError for weights that do not fit."""
    weights = dict(_tensors(prefix, files))
    try:
        adapter.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"the weights under {prefix!r} in {folder} do not fit: {error}") from error


def _adjust_report(report: Any, prefixes: tuple[str, ...]) -> None:
    """Remove the tensors that were loaded afterwards from a library's report of a load, if there is one."""
    for kind in ("missing_keys", "unexpected_keys") if report is not None else ():
        left = [name for name in report[kind] if not name.startswith(prefixes)]
        report[kind] = type(report[kind])(left)


def _tensors(prefix: str, files: Mapping[str, Path]) -> Iterator[tuple[str, Tensor]]:
    """The tensors under a prefix, with their names after it."""
    for name, file in files.items():
        if name.startswith(prefix):
            with import_safetensors().safe_open(file, framework="pt") as opened:
                yield name.removeprefix(prefix), opened.get_tensor(name)


def _files(folder: Path, variant: str | None) -> dict[str, Path]:
    """The file that holds each tensor of a model: one for all, or shards, `model.fp16-00001-of-00002.safetensors`.

    Raises: FileNotFoundError if there is none.
    """
    pattern = r"[^.]+" + (rf"\.{re.escape(variant)}(-\d+-of-\d+)?" if variant else "") + r"\.safetensors"
    files = sorted(file for file in folder.iterdir() if re.fullmatch(pattern, file.name))
    if not files:
        of = f" of variant {variant!r}" if variant else ""
        raise FileNotFoundError(f"there are no safetensors{of} in {folder}; save with safe_serialization=True")
    file_of: dict[str, Path] = {}
    for file in files:
        with import_safetensors().safe_open(file, framework="pt") as opened:
            file_of |= dict.fromkeys(opened.keys(), file)
    return file_of


@contextmanager
def _without_reports(cls: Any) -> Iterator[None]:
    """Silence the warnings of the model's library about weights that are missing or not used."""
    # The class may be a user's own, derived from the library's.
    names = {base.__module__.partition(".")[0] for base in cls.__mro__}
    libraries = [sys.modules[name].utils.logging for name in ("diffusers", "transformers") if name in names]
    before = [logging.get_verbosity() for logging in libraries]
    for logging in libraries:
        logging.set_verbosity_error()
    try:
        yield
    finally:
        for logging, verbosity in zip(libraries, before, strict=True):
            logging.set_verbosity(verbosity)
