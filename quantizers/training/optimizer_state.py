"""What an optimizer keeps for a table of codes, brought along where some of them move.

Each kind of state by its own rule; one that has none is left as it is, with a warning, and never raises in the
middle of a training. Names and shapes are those of torch.optim, torchao, bitsandbytes, transformers and
schedule-free.
"""

import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

WRAPPED = ("optimizer", "optim", "_optimizer", "base_optimizer")
"""Where accelerate, Lightning, ZeroRedundancyOptimizer and others hold the optimizer that they wrap."""

COPIES = re.compile(r"z|ax|.*(slow|master|shadow).*")
"""States that are values of the parameter: of schedule-free, ASGD, Lookahead, and of mixed precision."""

INITIAL = {"step_size": "lr", "sum": "initial_accumulator_value"}
"""States that begin with a setting of their group instead of zero: of Rprop and Adagrad."""

ENCODINGS = re.compile(r"(qmap|absmax).*")
"""What belongs to a state of eight bits, and is read with it."""


class OptimizerState:
    """The states that an optimizer, or the optimizers that it wraps, keep for parameters.

    - Moments of the parameter's shape shrink with what is left of the old code, or go to what they begin with.
    - So do moments in eight bits: a tensor subclass that can be dequantized and copied to (torchao), where other
      codes in the same block may be rounded anew, and integers beside the numbers they stand for (bitsandbytes).
    - A factored second moment (Adafactor) shrinks along its rows; that of columns, a mean over all codes, stays.
    - Copies of the parameter take the new code.
    """

    def __init__(self) -> None:
        self._warned: set[tuple[str, ...]] = set()

    def warn_of_unknown(self, optimizer: object, tables: Mapping[str, list[nn.Parameter]]) -> None:
        """A warning where the optimizer does not have the trainable parameters of a table, by name."""
        known = {
            id(parameter)
            for each in _optimizers(optimizer)
            for group in getattr(each, "param_groups", ())
            for parameter in group["params"]
        }
        missing = [
            repr(name)
            for name, parameters in tables.items()
            if any(parameter.requires_grad and id(parameter) not in known for parameter in parameters)
        ]
        if missing:
            warnings.warn(
                f"optimizer is {type(optimizer).__name__}, which does not have the codes of {', '.join(missing)}: "
                "it does not train them, and another that does keeps its moments where codes move. Make it after "
                "the quantizers stand in the model, and pass the one that has their parameters",
                RuntimeWarning,
                stacklevel=4,
            )

    def follow(self, optimizer: object, parameter: nn.Parameter, places: Tensor, shares: Tensor) -> None:
        """Bring along what is kept for rows `places` [n] of a parameter [K, D], which have moved by `shares` [n].

        A state of an unknown kind that may be of single rows is left as it is, with one warning.
        """
        seen, left_alone = set(), {}
        for each in _optimizers(optimizer):
            states = getattr(each, "state", {})
            state = states.get(parameter, {}) if isinstance(states, Mapping) else {}
            if id(state) in seen or not isinstance(state, Mapping):
                continue
            seen.add(id(state))
            for name, value in state.items():
                for part in pytree.tree_leaves(value):
                    if isinstance(part, Tensor):
                        reason = _follow(
                            _Rows(parameter, places, shares), name, part, state, _setting(each, parameter)
                        )
                        left_alone.update({str(name): reason} if reason else {})
        names = (type(optimizer).__name__, *left_alone)
        if left_alone and names not in self._warned:
            self._warned.add(names)
            described = ", ".join(f"{name!r} ({reason})" for name, reason in left_alone.items())
            warnings.warn(
                f"{type(optimizer).__name__} keeps states of codes that do not follow where codes move, and stay "
                f"as they are: {described}",
                RuntimeWarning,
                stacklevel=5,
            )


class _Rows:
    """Rows of a parameter that have moved."""

    def __init__(self, parameter: nn.Parameter, places: Tensor, shares: Tensor) -> None:
        self.parameter = parameter
        self.places = places
        self.shares = shares

    @property
    def size(self) -> torch.Size:
        return self.parameter.shape

    def moved(self, old: Tensor, target: Tensor | float) -> Tensor:
        """`old` rows [..., n, D] or [n] gone to `target` by their shares; exactly there where a share is 1."""
        shares = self.shares.to(old.device)
        shares = shares if old.dim() == 1 else shares[:, None]
        wide = old.to(torch.promote_types(old.dtype, shares.dtype))
        return torch.where(shares < 1, (1 - shares) * wide + shares * target, target).to(old.dtype)


Settings = Mapping[str, Any]


def _follow(rows: _Rows, name: Any, value: Tensor, state: Mapping[Any, Any], settings: Settings) -> str:
    """Move what belongs to `rows` in a state; returns why it was left alone, or nothing."""
    name = str(name)
    try:
        if value.shape[-2:] == rows.size and not _is_preconditioner(value):
            return _follow_table(rows, name, value, state, settings)
        if value.shape == (rows.size[0], 1) or (value.shape == rows.size[:1] and "row" in name):
            places = rows.places.to(value.device)
            value[places] = rows.moved(value[places], 0.0)
            return ""
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
        return f"{type(value).__name__} {value.dtype}: {type(error).__name__}"
    return f"of shape {tuple(value.shape)}" if _may_be_of_rows(rows, name, value) else ""


def _follow_table(rows: _Rows, name: str, value: Tensor, state: Mapping[Any, Any], settings: Settings) -> str:
    """`_follow` for a state [..., K, D]."""
    places = rows.places.to(value.device)
    target: Tensor | float = float(settings.get(INITIAL.get(name, ""), 0.0))
    if COPIES.fullmatch(name):
        target = rows.parameter.detach()[rows.places].to(value)
    if type(value) not in (Tensor, nn.Parameter):
        dense = value.dequantize()
        dense[..., places, :] = rows.moved(dense[..., places, :], target)
        value.copy_(dense)
    elif value.is_floating_point():
        value[..., places, :] = rows.moved(value[..., places, :], target)
    elif isinstance(numbers := state.get(re.sub(r"^\D*", "qmap", name)), Tensor):
        value[..., places, :] = _nearest(numbers, rows.moved(numbers[value[..., places, :].long()], 0.0)).to(value)
    else:
        return f"{value.dtype}, of an unknown encoding"
    return ""


def _nearest(numbers: Tensor, values: Tensor) -> Tensor:
    """Indices of the nearest of sorted `numbers`."""
    return torch.bucketize(values, (numbers[1:] + numbers[:-1]) / 2)


def _is_preconditioner(value: Tensor) -> bool:
    """Whether a state is a symmetric matrix, as Shampoo's: of a square table, moments have that shape too."""
    plain = type(value) is Tensor and value.dim() == 2 and value.shape[0] == value.shape[1]
    return bool(plain and value.is_floating_point() and value.any() and torch.allclose(value, value.T))


def _may_be_of_rows(rows: _Rows, name: str, value: Tensor) -> bool:
    count, channels = rows.size
    if value.dim() < 2 and (value.numel() == 1 or "col" in name or ENCODINGS.fullmatch(name)):
        return False
    return value.numel() == count * channels or count in value.shape[:1] or count in value.shape[-2:-1]


def _optimizers(optimizer: object) -> Iterator[object]:
    """An optimizer, and those that it wraps; those that are wrapped first."""
    found = [optimizer]
    for each in found:  # which grows
        inner = [getattr(each, name, None) for name in WRAPPED]
        found += [
            other for other in inner if hasattr(other, "param_groups") and all(other is not one for one in found)
        ]
    return reversed(found)


def _setting(optimizer: object, parameter: nn.Parameter) -> Settings:
    """The settings of the group that a parameter is in."""
    for group in getattr(optimizer, "param_groups", ()):
        if any(each is parameter for each in group["params"]):
            return {**getattr(optimizer, "defaults", {}), **group}
    return {}
