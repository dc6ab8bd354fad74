"""What a quantizer's indices mean, beside its weights in a checkpoint, so that another one does not load them.

Weights of the same shapes may be of other codes: levels (8, 5, 5) and (5, 5, 8) have the same (no) weights. The
rule by which indices are codes, a dict of JSON values, is kept in the state as bytes, a uint8 tensor, which every
format of checkpoints holds.
"""

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

Rule = Mapping[str, Any]
NAME = "index_format"


def as_bytes(rule: Rule, device: torch.device | None = None) -> Tensor:
    """A rule as uint8 [n]."""
    text = json.dumps(rule, sort_keys=True, separators=(",", ":"))
    return torch.tensor(list(text.encode()), dtype=torch.uint8, device=device)


def difference(found: Tensor, rule: Rule) -> str:
    """What a checkpoint's rule and a quantizer's own differ in, in words; empty where they agree.

    Bytes that are no rule, as memory that a loader did not fill, differ in nothing that could be named.
    """
    saved = _read(found)
    if saved is None:
        return ""
    names = [name for name in sorted({*saved, *rule}) if saved.get(name) != rule.get(name)]
    return ", ".join(f"{name} {_shown(saved, name)} and not {_shown(rule, name)}" for name in names)


def _shown(rule: Rule, name: str) -> str:
    return json.dumps(rule[name]) if name in rule else "(none)"


def _read(found: Tensor) -> dict[str, Any] | None:
    if found.is_meta or found.dtype != torch.uint8:
        return None
    try:
        rule = json.loads(bytes(found.flatten().tolist()))
    except ValueError:
        return None
    return rule if isinstance(rule, dict) else None
