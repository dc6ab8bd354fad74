"""Checkpoints: one file per model, written atomically, with its training settings."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks import machine
from benchmarks.errors import InputError
from benchmarks.files import write_bytes
from benchmarks.stored_results import source_digest

HERE = Path(__file__).resolve().parent
FOLDERS = (HERE, HERE.parent / "models")
FILES = ("aids", "autoencoder", "captions", "crops", "data", "digits", "training", "variants")


def save(path: Path, content: dict[str, Any]) -> None:
    """Save tensors, numbers, strings, and lists and dictionaries of them."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_bytes(path, buffer.getvalue())


def load(path: Path) -> dict[str, Any] | None:
    """Load on the CPU what `save` wrote; None if the file is missing or unreadable."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch's readers raise many kinds of errors on damaged files
        return None
    return content if isinstance(content, dict) else None


def load_finished(path: Path, command: str) -> dict[str, Any]:
    """Load the checkpoint of a finished training. Raises: InputError with the name of the command that creates
    one.
    """
    made_by = f"run `python -m benchmarks {command}` to create it"
    if not path.is_file():
        raise InputError(f"{path} does not exist: {made_by}")
    content = load(path)
    if content is None or not {"settings", "step", "model", "losses"} <= content.keys():
        raise InputError(f"{path} cannot be read as a checkpoint: {made_by} again")
    if content["step"] < content["settings"]["steps"]:
        raise InputError(
            f"{path} is at step {content['step']} of {content['settings']['steps']}: run the interrupted command "
            f"{command} again to finish it"
        )
    return content


def load_weights(path: Path, model: nn.Module, weights: dict[str, Any]) -> None:
    """Load weights into a model. Raises: InputError if their shapes differ from the model's."""
    try:
        model.load_state_dict(weights)
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        reasons = [line.strip() for line in str(error).splitlines()]
        reason = next((line for line in reasons if "size mismatch" in line), reasons[-1] if reasons else "")
        raise InputError(f"the weights in {path} have other shapes than its settings say: {reason}") from error


def fingerprint(settings: dict[str, Any], device: str) -> str:
    """Return a digest of all that determines a result: settings (with the data), machine, versions and source
    text.
    """
    files = [path for folder in FOLDERS for path in sorted(folder.glob("*.py"))]
    decides = {
        "settings": settings,
        "machine": machine.machine(torch.device(device)),
        "versions": machine.versions(),
        "source": source_digest([*files, *(HERE.parent / f"{name}.py" for name in FILES)]),
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def digest(weights: dict[str, Any]) -> str:
    """Return a digest of a state_dict's names, shapes and bits, which identifies a model."""
    found = hashlib.sha256()
    for name, value in sorted(weights.items()):
        if isinstance(value, torch.Tensor):
            flat = value.detach().cpu().contiguous().reshape(-1)
            found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            found.update(flat.view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
