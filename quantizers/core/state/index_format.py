"""The meaning of a quantizer's indices, stored in its checkpoint, so that no other quantizer loads it by mistake.

Weights of the same shapes do not imply the same codes: FSQ with levels (8, 5, 5) and with (5, 5, 8) has the same
(empty) weights. So the state contains the rule that maps indices to codes: a dict of JSON values as bytes, in a
uint8 tensor, which every checkpoint format can store.
"""

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

Rule = Mapping[str, Any]
NAME = "index_format"


def as_bytes(rule: Rule, device: torch.device | None = None) -> Tensor:
    """A rule as the bytes of its JSON text: uint8 [n]."""
    text = json.dumps(rule, sort_keys=True, separators=(",", ":"))
    return torch.tensor(list(text.encode()), dtype=torch.uint8, device=device)


def difference(found: Tensor, rule: Rule) -> str:
    """How the rule in a checkpoint differs from the quantizer's own, in words; empty where they agree.

    Args:
        found: the checkpoint's rule as bytes. It is empty too for bytes that are not a rule, such as memory that a
            loader did not fill.
        rule: the quantizer's own.
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
