"""Quantizers as the command line names them: `ema_vq`, or `ema_vq:decay=0.8:gradient=rotation`.

After the registered name come options of its constructor, each behind a colon. A value is read as Python
writes it, `0.8`, `True`, `(8, 5, 5)`, and as a word otherwise.
"""

import ast
import re
from typing import Any

import quantizers
from benchmarks.errors import InputError

BETWEEN = re.compile(r",(?![^()]*\))")  # commas that stand in no parentheses


def split_list(text: str) -> list[str]:
    """The variants of a comma-separated list."""
    return [part.strip() for part in BETWEEN.split(text) if part.strip()]


def base_name(variant: str) -> str:
    """The registered name that a variant starts with."""
    return variant.split(":", 1)[0]


def file_name(variant: str) -> str:
    """The variant in characters that every file system takes."""
    return re.sub(r"[^\w.=-]+", "_", variant)


def create(variant: str, **common: Any) -> quantizers.Quantizer:
    """`quantizers.create` with the variant's own options over the common ones.

    Raises: InputError for an option without a value; else what the constructor raises.
    """
    name, *options = variant.split(":")
    return quantizers.create(name, **{**common, **dict(map(_option, options))})


def _option(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not (key.isidentifier() and equals and value):
        raise InputError(f"--quantizers: {text!r} is no option; expected name:key=value")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value
