"""Tells classes of one name apart by the arguments that their methods take."""

import inspect
from typing import Any


def takes(module: Any, method: str, argument: str) -> bool:
    """Whether a method of a module has an argument of a name, or one that it overrides does.

    A subclass that wraps the method may pass on whatever it gets.
    """
    own = (vars(base)[method] for base in type(module).__mro__ if method in vars(base))
    return any(argument in inspect.signature(function).parameters for function in own)
