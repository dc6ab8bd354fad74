"""Options that several constructors share: each is declared once, with its type and its default.

    class SearchOptions(TypedDict, total=False):
        distance: Annotated[Distance, Default("euclidean")]

    @checked
    def __init__(self, dim: Size, **options: Unpack[SearchOptions]) -> None: ...

`checked` gives this constructor the signature `(self, dim, *, distance="euclidean")`. It calls the constructor
with every option of the TypedDict, at its default where the caller gave none.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from typing_extensions import Unpack


@dataclass(frozen=True)
class Default:
    """Annotates an option of a TypedDict with its default."""

    value: object


def expanded_signature(function: Callable[..., object]) -> tuple[inspect.Signature, dict[str, object]]:
    """A function's signature with the options of `**options: Unpack[...]` as parameters of their own.

    Returns: the signature, and the defaults of the options that were expanded.

    Raises: TypeError for an option without a `Default`.
    """
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    if not parameters or get_origin(parameters[-1].annotation) is not Unpack:
        return signature, {}
    (options,) = get_args(parameters.pop().annotation)
    shared = [_parameter(name, hint) for name, hint in get_type_hints(options, include_extras=True).items()]
    defaults = {parameter.name: parameter.default for parameter in shared}
    return signature.replace(parameters=parameters + shared), defaults


def _parameter(name: str, hint: Any) -> inspect.Parameter:
    base, *metadata = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    defaults = [item for item in metadata if isinstance(item, Default)]
    if len(defaults) != 1:
        raise TypeError(f"option {name} has {len(defaults)} defaults, expected one Default in its annotation")
    annotation: Any = base
    for item in metadata:
        if not isinstance(item, Default):
            annotation = Annotated[annotation, item]
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=defaults[0].value, annotation=annotation)
