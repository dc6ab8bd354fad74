"""From the batches of a data loader to the arguments of a model's forward."""

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from itertools import chain
from types import NoneType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from quantizers.core.wrappers import takes_anything, unwrapped
from quantizers.kernels.common.compat import add_note
from quantizers.kernels.common.dispatch import warn_once

Positional = tuple[Any, ...]
Keyword = dict[str, Any]
Kind = inspect.Parameter
BY_POSITION = (Kind.POSITIONAL_ONLY, Kind.POSITIONAL_OR_KEYWORD)
BY_NAME = (Kind.POSITIONAL_OR_KEYWORD, Kind.KEYWORD_ONLY)
PLAIN = (str, bytes, int, float, complex, NoneType)

INSTEAD = "pass forward=lambda model, batch: ... to run the model on a batch yourself"


class Arguments:
    """Selects from a batch the arguments that a model's forward takes.

    - A tensor or an array is the first argument.
    - Of a tuple or a list, the forward gets as many elements as it requires, and at least one. The elements after
      them are taken to be labels, never an optional argument such as a mask. A warning says so where one of them
      looks like a mask.
    - Of a mapping, the forward gets the entries that are named like its parameters, or all entries if it takes
      **kwargs. The same holds for the fields of a named tuple or a dataclass if one of them is named like a
      parameter.

    The signature is that of the model inside its wrappers (DistributedDataParallel, torch.compile).

    Args: model: the model. caller: the name of the function that selects the arguments, for messages.
    """

    def __init__(self, model: nn.Module, caller: str) -> None:
        self.caller = caller
        inside = unwrapped(model)
        while takes_anything(inside) and isinstance(inner := _inside_peft(inside), nn.Module):
            inside = inner
        self.signature = _without_annotations(inspect.signature(inside.forward))
        self.called = f"{type(inside).__name__}.forward{self.signature}"
        parameters = self.signature.parameters.values()
        positions = [parameter for parameter in parameters if parameter.kind in BY_POSITION]
        self.count = max(1, sum(parameter.default is Kind.empty for parameter in positions))
        self.optional = [parameter.name for parameter in positions[self.count :]]
        self.names = {parameter.name for parameter in parameters if parameter.kind in BY_NAME}
        self.takes_all_names = any(parameter.kind is Kind.VAR_KEYWORD for parameter in parameters)

    def of(self, batch: Any) -> tuple[Positional, Keyword]:
        """The positional and the keyword arguments that a batch contains.

        Raises: TypeError for a batch of an unknown type, and for one that does not contain what the forward
            requires.
        """
        positional: Positional = ()
        keyword: Keyword = {}
        fields = _fields(batch)
        if isinstance(batch, Tensor | np.ndarray):
            positional = (batch,)
        elif isinstance(batch, Mapping) or (fields.keys() & self.names):
            keyword = self._named(batch if isinstance(batch, Mapping) else fields)
        elif isinstance(batch, tuple | list):
            positional = self._first(batch)
        else:
            raise TypeError(
                f"a batch is {_described(batch)}, expected a tensor, an array, a tuple, a list or a mapping with "
                f"the arguments of {self.called}; or {INSTEAD}"
            )
        try:
            self.signature.bind(*positional, **keyword)
        except TypeError as error:
            raise TypeError(
                f"a batch is {_described(batch)}, which does not fit {self.called}: {error}; {INSTEAD}"
            ) from None
        return positional, keyword

    def explain(self, error: Exception) -> None:
        """Add a note on what the forward was called with to an error that it raised."""
        add_note(
            error,
            f"{self.caller} called {self.called} with arguments that it selected from a batch; if these are not "
            f"the right ones, {INSTEAD}",
        )

    def _first(self, batch: Positional | list[Any]) -> Positional:
        """The elements that the forward requires."""
        taken, others = tuple(batch[: self.count]), batch[self.count :]
        if _is_plain(taken) and any(isinstance(other, Tensor | np.ndarray) for other in others):
            raise TypeError(
                f"a batch is {_described(batch)}, of which {self.called} requires the first {self.count}, where "
                f"there is no tensor: it is unclear which element is the model's input; {INSTEAD}"
            )
        for name, value in zip(self.optional, others, strict=False):
            if "mask" in name and isinstance(value, Tensor) and value.dtype == torch.bool:
                warn_once(
                    f"A batch has a bool tensor at the position of the optional argument {name} of "
                    f"{self.called}. {self.caller} takes it for a label and leaves it out. To pass it, make the "
                    f"batch a dict with the names of the arguments, or {INSTEAD}"
                )
        return taken

    def _named(self, entries: Mapping[Any, Any]) -> Keyword:
        """The entries that are named like parameters of the forward."""
        names = [name for name in entries if isinstance(name, str)]
        known = {name: entries[name] for name in names if self.takes_all_names or name in self.names}
        if not known:
            raise TypeError(
                f"a batch is {_described(entries)}, none of which is a parameter of {self.called}; name the "
                f"entries like the parameters, or {INSTEAD}"
            )
        return known


class Mover:
    """Moves tensors and arrays to the device of a model, if all of the model is on one device.

    Floating-point arrays become tensors with the dtype of the model's first floating-point parameter, since numpy
    defaults to float64.
    """

    def __init__(self, model: nn.Module) -> None:
        tensors = list(chain(model.parameters(), model.buffers()))
        devices = {tensor.device for tensor in tensors}
        device = devices.pop() if len(devices) == 1 else None
        self.device = None if device is None or device.type == "meta" else device
        floating = (parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())
        self.dtype = next(floating, None)

    def __call__(self, arguments: Any) -> Any:
        return pytree.tree_map(self._moved, arguments)

    def _moved(self, value: Any) -> Any:
        if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            value = torch.from_numpy(value)
            value = value.to(self.dtype) if value.is_floating_point() else value
        return value.to(self.device) if isinstance(value, Tensor) and self.device is not None else value


def _without_annotations(signature: inspect.Signature) -> inspect.Signature:
    parameters = [parameter.replace(annotation=Kind.empty) for parameter in signature.parameters.values()]
    return signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty)


def _inside_peft(model: nn.Module) -> object:
    """The model inside a model of peft, whose forward accepts any arguments and passes them on."""
    children = dict(model.named_children())
    return children.get("base_model", children.get("model"))


def _is_plain(values: Sequence[Any]) -> bool:
    """Whether values contain only strings, Python numbers and None, possibly in containers."""
    return all(isinstance(leaf, PLAIN) for leaf in pytree.tree_leaves(values))


def _fields(batch: Any) -> dict[str, Any]:
    """The fields of a named tuple or a dataclass by name; an empty dict for anything else."""
    if isinstance(batch, tuple):
        return dict(zip(getattr(batch, "_fields", ()), batch, strict=False))
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        return {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    return {}


def _described(batch: Any) -> str:
    if isinstance(batch, Mapping):
        return f"a {type(batch).__name__} with keys {sorted(map(str, batch))}"
    if isinstance(batch, tuple | list):
        return f"a {type(batch).__name__} of {len(batch)}"
    return f"a {type(batch).__name__}"
