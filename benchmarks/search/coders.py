"""The interface of what is compared: a method is fitted to vectors, and returns one coder or several."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from benchmarks.search.settings import Settings

OURS = "ours"
FAISS = "faiss"


class Coder(NamedTuple):
    """A fitted method with one way to encode.

    name    how it encodes, for the tables: "residual, beam"
    encode  vectors [n, D] to codes, in the library's own form
    decode  these codes to vectors [n, D]
    """

    name: str
    encode: Callable[[Tensor], Any]
    decode: Callable[[Any], Tensor]


class Task(NamedTuple):
    """What a method is fitted to: training vectors [n, D], a number of codebooks, and a seed."""

    train: Tensor
    codebooks: int
    seed: int
    settings: Settings


@dataclass(frozen=True)
class Method:
    """A method of one library.

    fit   returns its coders, which share the fit and therefore its seconds
    slow  whether it takes part only in `Settings.slow_codebooks` and with the first seed
    """

    library: str
    name: str
    fit: Callable[[Task], list[Coder]]
    slow: bool = False


def has_faiss() -> bool:
    return importlib.util.find_spec("faiss") is not None
