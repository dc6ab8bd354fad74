"""What a data loader gives, as arguments of a model's forward."""

import dataclasses
import inspect
from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from quantizers.core.wrappers import takes_anything, unwrapped
from quantizers.kernels.dispatch import warn_once

Positional = tuple[Any, ...]
Keyword = dict[str, Any]
Kind = inspect.Parameter
BY_POSITION = (Kind.POSITIONAL_ONLY, Kind.POSITIONAL_OR_KEYWORD)
BY_NAME = (Kind.POSITIONAL_OR_KEYWORD, Kind.KEYWORD_ONLY)

INSTEAD = "; or pass forward=lambda model, batch: ..., which runs the model on a batch"


class Arguments:
    """Chooses from a batch what the forward of a model takes.

    - A tensor or an array is its first argument.
    - Of a tuple or a list as many elements are taken as the forward requires, at least one; those that follow are
      labels, never an optional argument such as a mask. One that looks like a mask is left out with a warning.
    - Of a mapping those entries are taken that the forward has as parameters, all where it takes **kwargs; so of a
      named tuple or a dataclass whose fields are named as parameters.

    A model in a wrapper (DistributedDataParallel, torch.compile) has the signature of the model inside.
    """

    def __init__(self, model: nn.Module) -> None:
        inside = unwrapped(model)
        while takes_anything(inside) and isinstance(inner := _of_peft(inside), nn.Module):
            inside = inner
        self.signature = _without_annotations(inspect.signature(inside.forward))
        self.called = f"{type(inside).__name__}.forward{self.signature}"
        parameters = self.signature.parameters.values()
        positions = [each for each in parameters if each.kind in BY_POSITION]
        self.count = max(1, sum(each.default is Kind.empty for each in positions))
        self.optional = [each.name for each in positions[self.count :]]
        self.names = {each.name for each in parameters if each.kind in BY_NAME}
        self.takes_all_names = any(each.kind is Kind.VAR_KEYWORD for each in parameters)

    def of(self, batch: Any) -> tuple[Positional, Keyword]:
        """The positional and the keyword arguments in a batch.

        Raises: TypeError for a batch of another kind, or one in which the forward does not find its arguments.
        """
        positional: Positional = ()
        keyword: Keyword = {}
        fields = _fields(batch)
        if isinstance(batch, Tensor | np.ndarray):
            positional = (batch,)
        elif isinstance(batch, Mapping) or (fields.keys() & self.names):
            keyword = self._known(batch if isinstance(batch, Mapping) else fields)
        elif isinstance(batch, tuple | list):
            positional = tuple(batch[: self.count])
            self._warn_of_masks(batch)
        else:
            raise TypeError(
                f"a batch is {type(batch).__name__}, expected a tensor, an array, a tuple, a list or a mapping of "
                f"{self.called}{INSTEAD}"
            )
        try:
            self.signature.bind(*positional, **keyword)
        except TypeError as error:
            raise TypeError(f"a batch is {_described(batch)}, and for {self.called} {error}{INSTEAD}") from None
        return positional, keyword

    def _warn_of_masks(self, batch: Positional | list[Any]) -> None:
        for name, value in zip(self.optional, batch[self.count :], strict=False):
            if "mask" in name and isinstance(value, Tensor) and value.dtype == torch.bool:
                warn_once(
                    f"A batch's tensor of bool stands where {self.called} has its optional {name}, and is left "
                    f"out as labels are; to pass it, name the entries in a dict{INSTEAD}"
                )

    def _known(self, entries: Mapping[Any, Any]) -> Keyword:
        names = [name for name in entries if isinstance(name, str)]
        known = {name: entries[name] for name in names if self.takes_all_names or name in self.names}
        if not known:
            raise TypeError(
                f"a batch is {_described(entries)}, none of which is a parameter of {self.called}; name the "
                f"entries as the parameters{INSTEAD}"
            )
        return known


class Mover:
    """Brings the tensors and arrays among arguments to a model, where it lies on one device alone.

    Arrays of floating numbers become tensors of the dtype of the model's first parameter of such numbers: numpy's
    own default is float64.
    """

    def __init__(self, model: nn.Module) -> None:
        held = list(chain(model.parameters(), model.buffers()))
        devices = {tensor.device for tensor in held}
        device = devices.pop() if len(devices) == 1 else None
        self.device = None if device is None or device.type == "meta" else device
        self.dtype = next((each.dtype for each in model.parameters() if each.is_floating_point()), None)

    def __call__(self, arguments: Any) -> Any:
        return pytree.tree_map(self._moved, arguments)

    def _moved(self, value: Any) -> Any:
        if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            value = torch.from_numpy(value)
            value = value.to(self.dtype) if value.is_floating_point() else value
        return value.to(self.device) if isinstance(value, Tensor) and self.device is not None else value


def _without_annotations(signature: inspect.Signature) -> inspect.Signature:
    parameters = [each.replace(annotation=Kind.empty) for each in signature.parameters.values()]
    return signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty)


def _of_peft(model: nn.Module) -> object:
    """What one of peft's models, whose forward takes anything, passes calls on to."""
    children = dict(model.named_children())
    return children.get("base_model", children.get("model"))


def _fields(batch: Any) -> dict[str, Any]:
    """The fields of a named tuple or a dataclass by name; none of anything else."""
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
    return type(batch).__name__
