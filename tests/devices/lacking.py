"""The operators that PyTorch has for a CPU and not for mps, from the list in its wheel."""

import functools
from pathlib import Path
from typing import Any

import torchgen
import yaml

LIST = Path(torchgen.__file__).parent / "packaged/ATen/native/native_functions.yaml"


@functools.cache
def lacking_operators() -> frozenset[str]:
    """Return names such as "aten::frexp.Tensor_out".

    An operator with a kernel for a CPU and none for mps, and without one for every device, is lacking. So is one
    for every device that only calls its own variant with `out`, which is lacking.
    """
    entries = {entry["func"].split("(")[0]: entry for entry in yaml.safe_load(LIST.read_text())}
    lacking = {name for name, entry in entries.items() if _is_lacking(_backends(entry, entries))}
    callers = {
        name
        for name, entry in entries.items()
        if _is_composite(_backends(entry, entries)) and lacking & {f"{name}_out", f"{name}.out"}
    }
    return frozenset(f"aten::{name}" for name in lacking | callers)


def _is_lacking(backends: set[str]) -> bool:
    return "CPU" in backends and "MPS" not in backends and not _is_composite(backends)


def _is_composite(backends: set[str]) -> bool:
    return any(name.startswith("Composite") for name in backends)


def _backends(entry: dict[str, Any], entries: dict[str, dict[str, Any]]) -> set[str]:
    """Return the backends with a kernel; an entry may leave its kernels to the entry of its variant with `out`."""
    entry = entries[entry.get("structured_delegate", entry["func"].split("(")[0])]
    return {name.strip() for names in entry.get("dispatch", {}) for name in names.split(",")}
