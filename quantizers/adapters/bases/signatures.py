"""Tells classes of one name apart by the arguments that their methods take."""

import inspect
from typing import Any


def takes(method: Any, argument: str) -> bool:
    """Whether a method has an argument of a name."""
    return argument in inspect.signature(method).parameters
