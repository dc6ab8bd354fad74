"""A new quantizer from the options of `fit`."""

import ast
from collections.abc import Sequence
from typing import Any

from quantizers.cli.exits import InputError
from quantizers.core.base import Quantizer
from quantizers.core.registry import create, options

LEVEL_OPTIONS = ("num_quantizers", "num_groups", "num_heads")
LEVELS = 3  # of semantic IDs, as in TIGER


def build(name: str, dim: int, levels: int | None, codebook_size: int, given: Sequence[str]) -> Quantizer:
    """Build a quantizer by its registered name.

    Args:
        name: one of `quantizers.available()`.
        dim: channels of the embeddings.
        levels: how many stages, groups or heads; None for the default.
        codebook_size: codes of each codebook.
        given: other options of the quantizer, "name=value".

    Raises: InputError for an option that is not name=value, and for levels of a quantizer that has none; and the
        errors of `quantizers.create`.
    """
    known = options(name)
    chosen: dict[str, Any] = {"codebook_size": codebook_size, **parse_options(given)}
    if (option := _level_option(name)) is not None:
        if levels is not None or option == "num_quantizers":
            chosen.setdefault(option, LEVELS if levels is None else levels)
    elif levels not in (None, 1):
        raise InputError(f"--levels: {name} has one codebook; residual, grouped and opq have several levels")
    if "codebook_size" not in known and not known.others:
        del chosen["codebook_size"]
    return create(name, dim, **chosen)


def parse_options(given: Sequence[str]) -> dict[str, Any]:
    """Options "name=value"; a value is a Python literal or else a string.

    Raises: InputError for anything else.
    """
    parsed = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (equals and name.isidentifier()):
            raise InputError(f"--option: got {text!r}, expected name=value, such as distance=cosine")
        try:
            parsed[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            parsed[name] = value
    return parsed


def _level_option(name: str) -> str | None:
    """The option that says how many codebooks a quantizer has."""
    return next((option for option in LEVEL_OPTIONS if option in options(name)), None)
