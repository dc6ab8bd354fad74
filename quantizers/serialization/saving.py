"""Saving a trained quantizer to a folder, and loading it.

The folder contains `config.json`, the quantizer's configuration and its dtype, and `model.safetensors`, all
tensors of its state dict. Hugging Face's tools expect these names. `save` leaves other files in the folder alone.
After an interrupted `save` the folder contains the old quantizer, the new one, or no `config.json`, for which
`load` raises an error; it never contains a mixture of two quantizers.

Needs safetensors: `pip install quantizers-torch[hub]`.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quantizers.core.base import Quantizer
from quantizers.core.state.index_format import NAME as INDEX_FORMAT
from quantizers.serialization.configuration import configuration, rebuild

CONFIGURATION = "config.json"
WEIGHTS = "model.safetensors"


def save(quantizer: Quantizer, path: str | os.PathLike[str]) -> None:
    """Save a quantizer to a folder: its configuration and its weights.

        >>> import tempfile, torch, quantizers
        >>> quantizer = quantizers.VectorQuantizer(4, codebook_size=16)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     quantizers.save(quantizer, folder)
        ...     loaded = quantizers.load(folder)
        >>> torch.equal(loaded.codebook, quantizer.codebook)
        True

    The configuration omits values that JSON cannot represent, such as your own gradient function; pass them to
    `load` by name. In distributed training a single process should save, after gathering the shards of FSDP.

    Args:
        quantizer: any quantizer.
        path: the folder, which is created if it does not exist. A quantizer in it is replaced.

    Raises: ImportError without safetensors; FileExistsError where `path` is a file, or contains the config.json of
        something else; ValueError for state that is not a tensor; TypeError for something other than a Quantizer;
        and the errors of `configuration`.
    """
    import_safetensors()
    folder = Path(path)
    content: dict[str, Any] = {**configuration(quantizer), "dtype": _dtype(quantizer)}
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder, _distinct_tensors(quantizer), json.dumps(content, indent=2, allow_nan=False) + "\n")


def load(path: str | os.PathLike[str], /, **overrides: Any) -> Quantizer:
    """Load the quantizer that `save` wrote to a folder, in evaluation mode, on the default device.

        >>> import tempfile, quantizers
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     quantizers.save(quantizers.FSQ(4, levels=(8, 5, 5)), folder)
        ...     quantizers.load(folder, channel_dim=1).channel_dim
        1

    After `.train()` its training continues where it was saved: moving averages and temperatures are part of the
    state. Loading does not change the state of the CPU's random number generator.

    Args:
        path: the folder.
        overrides: options that replace the saved ones, and those that `save` omitted, by name; see
            `quantizers.rebuild`.

    Raises: ImportError without safetensors; FileNotFoundError for a folder or file that does not exist; ValueError
        for a damaged file and for weights that do not fit the configuration; and the errors of `rebuild`.
    """
    safetensors = import_safetensors()
    folder = Path(path)
    for name, reason in ((CONFIGURATION, "; or saving was interrupted"), (WEIGHTS, "")):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"there is no {name} in {folder}, expected a folder that quantizers.save wrote{reason}"
            )
    quantizer = _rebuild(_read(folder / CONFIGURATION), overrides)
    try:
        weights = safetensors.torch.load_file(folder / WEIGHTS)
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"{folder / WEIGHTS} is not a complete safetensors file: {error}") from error
    if overrides:  # they may change the meaning of the indices
        weights = {name: value for name, value in weights.items() if name.rpartition(".")[2] != INDEX_FORMAT}
    try:
        _restore(quantizer, weights)
    except RuntimeError as error:
        raise ValueError(f"{folder / WEIGHTS} does not fit its configuration: {error}") from error
    return quantizer.eval()


def check_folder(folder: Path) -> None:
    """Raises: FileExistsError for a file, and for a folder with a config.json of something else."""
    if folder.is_file():
        raise FileExistsError(f"{folder} is a file, expected a folder to write into")
    file = folder / CONFIGURATION
    if file.exists() and not {"quantizer", "format"} <= _read(file).keys():
        raise FileExistsError(
            f"{file} is not the configuration of a quantizer, and is not overwritten; expected another folder"
        )


def import_safetensors() -> Any:
    """The package safetensors. Raises: ImportError, with the command that installs it."""
    try:
        import safetensors.torch
    except ImportError as error:
        raise ImportError("saving and loading need safetensors: pip install 'quantizers-torch[hub]'") from error
    return safetensors


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} contains a JSON value of type {type(content).__name__}, expected an object")
    return content


def _write(folder: Path, weights: dict[str, Tensor], configuration: str) -> None:
    """Write both files beside the old ones, then replace those; meanwhile there is no configuration."""
    new_weights, new_configuration = folder / f".{WEIGHTS}.new", folder / f".{CONFIGURATION}.new"
    import_safetensors().torch.save_file(weights, new_weights, metadata={"format": "pt"})
    new_configuration.write_text(configuration, encoding="utf-8")
    (folder / CONFIGURATION).unlink(missing_ok=True)
    new_weights.replace(folder / WEIGHTS)
    new_configuration.replace(folder / CONFIGURATION)


def _rebuild(content: dict[str, Any], overrides: dict[str, Any]) -> Quantizer:
    dtypes = {"float32": torch.float32, "float64": torch.float64}
    if content.get("dtype", "float32") not in dtypes:
        raise ValueError(f"the configuration has dtype {content['dtype']!r}, expected one of {', '.join(dtypes)}")
    with torch.random.fork_rng(devices=[]):
        return rebuild(content, **overrides).to(dtypes[content.get("dtype", "float32")])


def _dtype(quantizer: Quantizer) -> str:
    """The dtype of codes that are computed, such as FSQ's. The file has the dtype of each stored tensor."""
    dtypes = {module._dtype for module in quantizer.modules() if isinstance(module, Quantizer)}
    return "float64" if dtypes == {torch.float64} else "float32"


def _tensors_with_names(quantizer: Quantizer) -> Iterator[tuple[Tensor, list[str]]]:
    """Each tensor of the state dict with all of its names: a shared module has several."""
    names: dict[int, list[str]] = {}
    state = quantizer.state_dict(keep_vars=True)
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"state {name!r} is {type(value).__name__}, expected a tensor")
        names.setdefault(id(value), []).append(name)
    return ((state[names_of[0]], names_of) for names_of in names.values())


def _distinct_tensors(quantizer: Quantizer) -> dict[str, Tensor]:
    """Copies of the state's tensors on the CPU, each under the first of its names."""
    return {
        names[0]: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for value, names in _tensors_with_names(quantizer)
    }


def _restore(quantizer: Quantizer, weights: dict[str, Tensor]) -> None:
    """Load the state in place, in the dtypes of the file, so that tied tensors stay tied."""
    for value, names in _tensors_with_names(quantizer):
        found = next((weights[name] for name in names if name in weights), None)
        if found is not None:
            value.data = value.data.to(found.dtype)
            weights |= dict.fromkeys(names, found)
    quantizer.load_state_dict(weights, strict=True)
