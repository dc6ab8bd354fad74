"""Quantizers as the command line names them: `ema_vq`, or `ema_vq:decay=0.8:gradient=rotation`.

Constructor options and training aids (`aids.py`) follow the registered name, each after a colon. A value is parsed
as a Python literal (`0.8`, `True`, `(8, 5, 5)`, `[(0.5, 1), (1, 1)]`), and as a string otherwise.
"""

import ast
import re
from typing import Any

import quantizers
from benchmarks.aids import Aids, decay_of, split_aids
from benchmarks.errors import InputError

# The methods that the sweep compares by default. Other registered methods join by name or by `all`.
# The last is the rotation trick on codes that are moving averages, with a decay short enough for a run of a
# thousand steps.
CORE = ["ema_vq", "fsq", "gumbel", "rotation_vq", "simvq", "vq", "ema_vq:decay=0.8:gradient=rotation"]

# The default of `python -m benchmarks utilization`, which takes less than five minutes on two cores: plain VQ and
# three ways to use more of its codes, sampled codes, a grid, several codes per vector, and no quantizer.
COMPARED = [
    "vq",
    "vq:warm_start=True:replace=dead",
    "ema_vq:decay=0.8:gradient=rotation",
    "simvq",
    "gumbel",
    "fsq",
    "residual",
    "none",
]

# QINCo computes N × K codes with a network. At its default size a step takes most of a minute on a CPU.
REDUCED = {"qinco": "qinco:num_quantizers=2:hidden_dim=32:blocks=1:codebook_size=256"}

# What papers prescribe beyond the constructor's defaults, or what a method needs in order to work, as `recipes`.
RECIPES = [
    "vq:replace=dead",
    "vq:warm_start=True:replace=dead",
    "ema_vq:replace=dead",
    "ema_vq:decay=0.8:gradient=rotation",
    "ema_vq:decay=0.9:decay_to=0.999:replace=split:final_means=True",  # e-means
    "diveq:replace=dead",
    "nsvq:replace=dead",
    "ibq:replace=dead",
    "ibq:entropy_weight=0.05",
    "interpolated:quantizer=vq:harden=True",
    "residual_fsq:normalize=True",
]


def split_list(text: str) -> list[str]:
    """Split a comma-separated list of variants.

    `all` stands for every registered name, see REDUCED, and `recipes` for RECIPES.
    """
    several = {"all": _all(), "recipes": RECIPES}
    given = [word.strip() for word in _split_outside_brackets(text) if word.strip()]
    return [name for word in given for name in several.get(word, [word])]


def _split_outside_brackets(text: str) -> list[str]:
    words, depth = [""], 0
    for character in text:
        depth += (character in "([") - (character in ")]")
        if character == "," and depth <= 0:
            words.append("")
        else:
            words[-1] += character
    return words


def _all() -> list[str]:
    return [REDUCED.get(name, name) for name in quantizers.available()]


def base_name(variant: str) -> str:
    """Return the registered name at the start of a variant."""
    return variant.split(":", 1)[0]


def label(variant: str) -> str:
    """Return the variant for a picture or a narrow column, with each option on its own line."""
    return variant.replace(":", "\n")


def file_name(variant: str) -> str:
    """Return the variant with only characters that every file system accepts."""
    return re.sub(r"[^\w.=-]+", "_", variant)


def create(variant: str, **common: Any) -> quantizers.Quantizer:
    """Call `quantizers.create`; the variant's own options override the common ones.

    Raises: InputError for an option without a value, `anneal` for a quantizer without a temperature, or `decay_to`
    for one without moving averages; otherwise the constructor's errors.
    """
    name, options = base_name(variant), _options(variant)
    quantizer = quantizers.create(name, **{**common, **split_aids(options)[1]})
    if "anneal" in options and not isinstance(quantizer, quantizers.GumbelQuantizer):
        raise InputError(f"--quantizers: {variant}: {name} has no temperature to anneal")
    if "decay_to" in options and decay_of(quantizer) is None:
        raise InputError(f"--quantizers: {variant}: {name} has no decay to anneal")
    return quantizer


def aids(variant: str) -> Aids:
    """Return the training aids that the variant requests. Raises: InputError."""
    return split_aids(_options(variant))[0]


def _options(variant: str) -> dict[str, Any]:
    return dict(map(_option, variant.split(":")[1:]))


def _option(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not (key.isidentifier() and equals and value):
        raise InputError(f"--quantizers: {text!r} is not an option; expected name:key=value")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value
