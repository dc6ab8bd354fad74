"""Save a trained quantizer into a folder with `quantizers.save(quantizer, path)`; `quantizers.load(path)`
restores it.

The folder holds `config.json`, which is `quantizers.configuration` with the dtype beside it, and
`model.safetensors`, all parameters and buffers of the `state_dict`: the names that Hugging Face's tools expect.
Other files in it stay. An interrupted `save` leaves the quantizer of before, the new one, or a folder without
configuration, which `load` says; never parts of two.

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
    """Write a quantizer into the folder `path`, which is made where it does not exist.

    What JSON cannot tell, as a gradient function of your own, is left out, and `load` asks for it. Of several
    processes one saves, a quantizer whose tensors are whole: FSDP's shards are gathered first.

    Raises: ImportError without safetensors; FileExistsError where `path` is a file, or holds the config.json of
        something else; ValueError for state that is no tensor; TypeError for what is no Quantizer; and as
        `configuration`.
    """
    import_safetensors()
    folder = Path(path)
    told: dict[str, Any] = {**configuration(quantizer), "dtype": _dtype(quantizer)}
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder, _distinct(quantizer), json.dumps(told, indent=2, allow_nan=False) + "\n")


def load(path: str | os.PathLike[str], /, **overrides: Any) -> Quantizer:
    """The quantizer in the folder `path`, in evaluation mode, on the default device.

    `.train()` goes on with its training: averages and temperatures are where they were. No random number is drawn
    from the CPU's generator.

    Args: overrides: options that are to be others than saved, or that `save` could not tell, by name; see
        `quantizers.rebuild`.

    Raises: ImportError without safetensors; FileNotFoundError for a folder or file that is not there; ValueError
        for a file that is not what it should be, weights that do not fit the configuration, and as `rebuild`.
    """
    safetensors = import_safetensors()
    folder = Path(path)
    for name, reason in ((CONFIGURATION, ", or saving into it was interrupted"), (WEIGHTS, "")):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"there is no {name} in {folder}: it is not a folder with a quantizer{reason}")
    quantizer = _rebuilt(_read(folder / CONFIGURATION), overrides)
    try:
        weights = safetensors.torch.load_file(folder / WEIGHTS)
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"{folder / WEIGHTS} is not a whole safetensors file: {error}") from error
    if overrides:  # which may be about what the indices mean
        weights = {name: value for name, value in weights.items() if name.rpartition(".")[2] != INDEX_FORMAT}
    try:
        _restore(quantizer, weights)
    except RuntimeError as error:
        raise ValueError(f"{folder / WEIGHTS} does not fit its configuration: {error}") from error
    return quantizer.eval()


def check_folder(folder: Path) -> None:
    """Raises: FileExistsError for a file, and for a folder with the config.json of something else."""
    if folder.is_file():
        raise FileExistsError(f"{folder} is a file, expected a folder to write into")
    file = folder / CONFIGURATION
    if file.exists() and not {"quantizer", "format"} <= _read(file).keys():
        raise FileExistsError(f"{file} is not of a quantizer, and is left as it is; expected another folder")


def import_safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError as error:
        raise ImportError("saving and loading need safetensors: pip install 'quantizers-torch[hub]'") from error
    return safetensors


def _read(file: Path) -> dict[str, Any]:
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    if not isinstance(told, dict):
        raise ValueError(f"{file} holds {type(told).__name__}, expected a JSON object")
    return told


def _write(folder: Path, weights: dict[str, Tensor], configuration: str) -> None:
    """Both files beside the old ones, then in their places; in between there is no configuration."""
    new_weights, new_configuration = folder / f".{WEIGHTS}.new", folder / f".{CONFIGURATION}.new"
    import_safetensors().torch.save_file(weights, new_weights, metadata={"format": "pt"})
    new_configuration.write_text(configuration, encoding="utf-8")
    (folder / CONFIGURATION).unlink(missing_ok=True)
    new_weights.replace(folder / WEIGHTS)
    new_configuration.replace(folder / CONFIGURATION)


def _rebuilt(told: dict[str, Any], overrides: dict[str, Any]) -> Quantizer:
    dtypes = {"float32": torch.float32, "float64": torch.float64}
    if told.get("dtype", "float32") not in dtypes:
        raise ValueError(f"the configuration has dtype {told['dtype']!r}, expected one of {', '.join(dtypes)}")
    with torch.random.fork_rng(devices=[]):
        return rebuild(told, **overrides).to(dtypes[told.get("dtype", "float32")])


def _dtype(quantizer: Quantizer) -> str:
    """That of codes that are computed; of tensors of several dtypes each has its own in the file."""
    parts = [part for part in quantizer.modules() if isinstance(part, Quantizer)]
    return "float64" if {part._dtype for part in parts} == {torch.float64} else "float32"


def _names(quantizer: Quantizer) -> Iterator[tuple[Tensor, list[str]]]:
    """Each tensor of the state with all the names that it has: a part at several places has several."""
    names: dict[int, list[str]] = {}
    state = quantizer.state_dict(keep_vars=True)
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"state {name!r} is {type(value).__name__}, expected a tensor")
        names.setdefault(id(value), []).append(name)
    return ((state[of[0]], of) for of in names.values())


def _distinct(quantizer: Quantizer) -> dict[str, Tensor]:
    """Copies of the state's tensors on the CPU, each by the first of its names."""
    return {
        names[0]: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for value, names in _names(quantizer)
    }


def _restore(quantizer: Quantizer, weights: dict[str, Tensor]) -> None:
    """Load the state in place and in the dtypes of the file, so that what is tied stays tied."""
    for value, names in _names(quantizer):
        found = next((weights[name] for name in names if name in weights), None)
        if found is not None:
            value.data = value.data.to(found.dtype)
            weights |= dict.fromkeys(names, found)
    quantizer.load_state_dict(weights, strict=True)
