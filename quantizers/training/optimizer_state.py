"""The state that an optimizer has for a table of codes, updated when some of the codes move.

There is a rule for each kind of state. State without a rule is left unchanged, with a warning; it never raises an
error in the middle of a training. Names and shapes are those of torch.optim, torchao, bitsandbytes, transformers
and schedule-free.
"""

import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

WRAPPED = ("optimizer", "optim", "_optimizer", "base_optimizer")
"""Attributes in which accelerate, Lightning, ZeroRedundancyOptimizer and others store the optimizer they wrap."""

COPIES = re.compile(r"z|ax|.*(slow|master|shadow).*")
"""States that are copies of the parameter: in schedule-free, ASGD, Lookahead and mixed precision."""

INITIAL = {"step_size": "lr", "sum": "initial_accumulator_value"}
"""States that start at a setting of their parameter group instead of zero: in Rprop and Adagrad."""

ENCODINGS = re.compile(r"(qmap|absmax).*")
"""Tables and scales that belong to a state in eight bits, and are read together with it."""


class OptimizerState:
    """Updates the states that an optimizer, and the optimizers that it wraps, have for parameters.

    - Moments of the parameter's shape move toward their initial value, by the share by which the code moved.
    - So do moments in eight bits: tensor subclasses that can be dequantized and copied to (torchao), where this
      may round other codes in the same block again, and integers with a table of their values (bitsandbytes).
    - A factored second moment (Adafactor) shrinks in its row statistics. Its column statistics, which are means
      over all codes, do not change.
    - Copies of the parameter are set to the new code.
    """

    def __init__(self) -> None:
        self._warned: set[tuple[str, ...]] = set()

    def warn_of_unknown(self, optimizer: object, tables: Mapping[str, list[nn.Parameter]]) -> None:
        """Warn if the optimizer does not have all trainable parameters of the tables, given by name."""
        known = {
            id(parameter)
            for inner in _optimizers(optimizer)
            for group in getattr(inner, "param_groups", ())
            for parameter in group["params"]
        }
        missing = [
            repr(name)
            for name, parameters in tables.items()
            if any(parameter.requires_grad and id(parameter) not in known for parameter in parameters)
        ]
        if missing:
            warnings.warn(
                f"optimizer is {type(optimizer).__name__}, which does not have the codes of "
                f"{', '.join(missing)}. It does not train them, and where codes move, the moments of the "
                "optimizer that does train them do not change. Make the optimizer when the quantizers are "
                "in the model, and pass the one that has their parameters",
                RuntimeWarning,
                stacklevel=4,
            )

    def follow(self, optimizer: object, parameter: nn.Parameter, positions: Tensor, shares: Tensor) -> None:
        """Update the state of rows `positions` [n] of a parameter [K, D], which have moved by `shares` [n].

        State of an unknown kind that may belong to single rows is left unchanged, with one warning.
        """
        done, unchanged = set(), {}
        rows = _Rows(parameter, positions, shares)
        for inner in _optimizers(optimizer):
            states = getattr(inner, "state", {})
            state = states.get(parameter, {}) if isinstance(states, Mapping) else {}
            if id(state) in done or not isinstance(state, Mapping):
                continue
            done.add(id(state))
            for name, value in state.items():
                for tensor in pytree.tree_leaves(value):
                    if isinstance(tensor, Tensor):
                        reason = _follow(rows, name, tensor, state, _settings(inner, parameter))
                        unchanged.update({str(name): reason} if reason else {})
        names = (type(optimizer).__name__, *unchanged)
        if unchanged and names not in self._warned:
            self._warned.add(names)
            described = ", ".join(f"{name!r} ({reason})" for name, reason in unchanged.items())
            warnings.warn(
                f"{type(optimizer).__name__} has states of codes that cannot be updated when codes move, and are "
                f"left unchanged: {described}",
                RuntimeWarning,
                stacklevel=7,  # the caller of Replacement.step
            )


class _Rows:
    """Rows of a parameter that have moved, and by which shares."""

    def __init__(self, parameter: nn.Parameter, positions: Tensor, shares: Tensor) -> None:
        self.parameter = parameter
        self.positions = positions
        self.shares = shares

    @property
    def size(self) -> torch.Size:
        return self.parameter.shape

    def moved(self, old: Tensor, target: Tensor | float) -> Tensor:
        """Rows `old` [..., n, D] or [n], moved to `target` by their shares: exactly to it where a share is 1."""
        shares = self.shares.to(old.device)
        shares = shares if old.dim() == 1 else shares[:, None]
        wide = old.to(torch.promote_types(old.dtype, shares.dtype))
        return torch.where(shares < 1, (1 - shares) * wide + shares * target, target).to(old.dtype)


Settings = Mapping[str, Any]


def _follow(rows: _Rows, name: Any, value: Tensor, state: Mapping[Any, Any], settings: Settings) -> str:
    """Update the entries of a state that belong to `rows`. Returns: why it was left unchanged, or ""."""
    name = str(name)
    try:
        if value.shape[-2:] == rows.size and not _is_preconditioner(value):
            return _follow_table(rows, name, value, state, settings)
        if value.shape == (rows.size[0], 1) or (value.shape == rows.size[:1] and "row" in name):
            positions = rows.positions.to(value.device)
            value[positions] = rows.moved(value[positions], 0.0)
            return ""
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
        return f"{type(value).__name__} {value.dtype}: {type(error).__name__}"
    return f"shape {tuple(value.shape)}" if _may_be_of_rows(rows, name, value) else ""


def _follow_table(rows: _Rows, name: str, value: Tensor, state: Mapping[Any, Any], settings: Settings) -> str:
    """`_follow` for a state [..., K, D]."""
    positions = rows.positions.to(value.device)
    target: Tensor | float = float(settings.get(INITIAL.get(name, ""), 0.0))
    if COPIES.fullmatch(name):
        target = rows.parameter.detach()[rows.positions].to(value)
    if type(value) not in (Tensor, nn.Parameter):
        dense = value.dequantize()
        dense[..., positions, :] = rows.moved(dense[..., positions, :], target)
        value.copy_(dense)
    elif value.is_floating_point():
        value[..., positions, :] = rows.moved(value[..., positions, :], target)
    elif isinstance(numbers := state.get(re.sub(r"^\D*", "qmap", name)), Tensor):
        value[..., positions, :] = _nearest(numbers, rows.moved(numbers[value[..., positions, :].long()], 0.0)).to(
            value
        )
    else:
        return f"{value.dtype}, in an unknown encoding"
    return ""


def _nearest(numbers: Tensor, values: Tensor) -> Tensor:
    """The index of the number that is nearest to each value; `numbers` are sorted."""
    return torch.bucketize(values, (numbers[1:] + numbers[:-1]) / 2)


def _is_preconditioner(value: Tensor) -> bool:
    """Whether a state is a symmetric matrix, as in Shampoo. The moments of a square table have the same shape."""
    plain = type(value) is Tensor and value.dim() == 2 and value.shape[0] == value.shape[1]
    return bool(plain and value.is_floating_point() and value.any() and torch.allclose(value, value.T))


def _may_be_of_rows(rows: _Rows, name: str, value: Tensor) -> bool:
    count, channels = rows.size
    if value.dim() < 2 and (value.numel() == 1 or "col" in name or ENCODINGS.fullmatch(name)):
        return False
    return value.numel() == count * channels or count in value.shape[:1] or count in value.shape[-2:-1]


def _optimizers(optimizer: object) -> Iterator[object]:
    """An optimizer and the optimizers that it wraps, the innermost first."""
    found = [optimizer]
    for outer in found:  # the list grows in the loop
        inner = [getattr(outer, name, None) for name in WRAPPED]
        found += [
            other for other in inner if hasattr(other, "param_groups") and all(other is not one for one in found)
        ]
    return reversed(found)


def _settings(optimizer: object, parameter: nn.Parameter) -> Settings:
    """The settings of the parameter group that contains a parameter."""
    for group in getattr(optimizer, "param_groups", ()):
        if any(each is parameter for each in group["params"]):
            return {**getattr(optimizer, "defaults", {}), **group}
    return {}
