"""Quantizers as the command line names them: `ema_vq`, or `ema_vq:decay=0.8:gradient=rotation`.

After the registered name come options of its constructor and training aids (`aids.py`), each behind a colon. A
value is read as Python writes it, `0.8`, `True`, `(8, 5, 5)`, and as a word otherwise.
"""

import ast
import re
from typing import Any

import quantizers
from benchmarks.aids import Aids, split_aids
from benchmarks.errors import InputError

# The methods that every comparison here has, written out: what else is registered joins where it is asked for,
# by name or as `all`. The last: the rotation trick on codes that are moving averages, with a memory that is short
# enough for a run of a thousand steps.
CORE = ["ema_vq", "fsq", "gumbel", "rotation_vq", "simvq", "vq", "ema_vq:decay=0.8:gradient=rotation"]

# What `python -m benchmarks utilization` trains: they, plain VQ with what keeps codes alive, and the autoencoder
# without a quantizer.
COMPARED = [*CORE, "vq:warm_start=True:replace=dead", "none"]

# At its own size a step of QINCo, which computes N × K codes with a network, takes most of a minute on a CPU.
REDUCED = {"qinco": "qinco:num_quantizers=2:hidden_dim=32:blocks=1:codebook_size=256"}

BETWEEN = re.compile(r",(?![^()]*\))")  # commas that stand in no parentheses


def split_list(text: str) -> list[str]:
    """The variants of a comma-separated list, with every registered name in the place of `all`; see REDUCED."""
    given = [part.strip() for part in BETWEEN.split(text) if part.strip()]
    return [name for part in given for name in (_all() if part == "all" else [part])]


def _all() -> list[str]:
    return [REDUCED.get(name, name) for name in quantizers.available()]


def base_name(variant: str) -> str:
    """The registered name that a variant starts with."""
    return variant.split(":", 1)[0]


def label(variant: str) -> str:
    """The variant for a picture or a narrow column: each option on a line of its own."""
    return variant.replace(":", "\n")


def file_name(variant: str) -> str:
    """The variant in characters that every file system takes."""
    return re.sub(r"[^\w.=-]+", "_", variant)


def create(variant: str, **common: Any) -> quantizers.Quantizer:
    """`quantizers.create` with the variant's own options over the common ones.

    Raises: InputError for an option without a value, or a temperature's where there is none; else what the
    constructor raises.
    """
    name, options = base_name(variant), _options(variant)
    quantizer = quantizers.create(name, **{**common, **split_aids(options)[1]})
    if "anneal" in options and not isinstance(quantizer, quantizers.GumbelQuantizer):
        raise InputError(f"--quantizers: {variant}: {name} has no temperature to anneal")
    return quantizer


def aids(variant: str) -> Aids:
    """The training aids that the variant asks for. Raises: InputError."""
    return split_aids(_options(variant))[0]


def _options(variant: str) -> dict[str, Any]:
    return dict(map(_option, variant.split(":")[1:]))


def _option(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not (key.isidentifier() and equals and value):
        raise InputError(f"--quantizers: {text!r} is no option; expected name:key=value")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value
