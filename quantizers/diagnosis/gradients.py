"""The gradient that reaches a quantizer's input, beside the one that reaches its output."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from quantizers.core.base import Quantizer
from quantizers.core.output import QuantizerOutput
from quantizers.core.recompute import is_recomputing
from quantizers.diagnosis.measures import Gradients, python_path
from quantizers.kernels.common.wide import wide

NO_LOSS = "Gradients were not measured: pass loss=lambda model, batch: ... that returns the training loss."
NO_FORWARD = "Gradients were not measured: the loss does not come from a forward of a quantizer."


class GradientMeter:
    """Keeps what each quantizer gets and returns during a forward, and measures the gradients of a loss there."""

    def __init__(self, quantizers: Mapping[str, Quantizer]) -> None:
        self._quantizers = {name: each for name, each in quantizers.items() if passes_same(each)}
        self._pairs: list[tuple[str, Tensor, Tensor]] = []
        self._sums: dict[str, Tensor] = {}
        self._batches = 0
        self._saw_loss = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Keep the inputs and outputs of the forwards inside the block."""
        self._pairs.clear()
        handles = []
        for name, quantizer in self._quantizers.items():
            handles.append(quantizer.register_forward_pre_hook(_with_gradient, with_kwargs=True))
            handles.append(quantizer.register_forward_hook(self._keeper(name), with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _keeper(self, name: str) -> Any:
        def keep(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
            x = arguments[0] if arguments else named.get("x")
            if (
                isinstance(x, Tensor)
                and isinstance(output, QuantizerOutput)
                and not is_recomputing(x)
                and x.requires_grad
            ):
                self._pairs.append((name, x, output.quantized))

        return keep

    def measure(self, loss: Tensor) -> None:
        """Add the gradients of a loss of the forwards that were watched."""
        self._saw_loss = True
        ends = [end for _, x, quantized in self._pairs for end in (x, quantized)]
        if not ends:
            return
        found = torch.autograd.grad(loss, [end for end in ends if end.requires_grad], allow_unused=True)
        by_end = iter(found)
        gradients = [next(by_end) if end.requires_grad else None for end in ends]
        for (name, x, _), at_input, at_output in zip(self._pairs, gradients[::2], gradients[1::2], strict=True):
            zero = torch.zeros_like(x)
            a, b = (wide(zero if each is None else each).flatten() for each in (at_input, at_output))
            sums = torch.stack([a @ a, b @ b, a @ b]).cpu()
            self._sums[name] = self._sums.get(name, torch.zeros_like(sums)) + sums
        self._batches += 1

    def why_not(self, quantizers: Mapping[str, Quantizer]) -> str:
        """Why some quantizers have no results; empty if all have them."""
        if not self._batches and self._quantizers:
            return NO_FORWARD if self._saw_loss else NO_LOSS
        others = [python_path(name) for name in quantizers if name not in self._quantizers]
        if not others:
            return ""
        return (
            f"Gradients were not measured of {', '.join(others)}: training passes another gradient there than "
            "evaluation."
        )

    def results(self) -> dict[str, Gradients]:
        """What was measured of each quantizer, by its name."""
        found = {}
        for name, sums in self._sums.items():
            inside, outside, product = sums.tolist()
            norms = math.sqrt(inside / self._batches), math.sqrt(outside / self._batches)
            cosine = product / math.sqrt(inside * outside) if inside * outside > 0 else None
            found[name] = Gradients(*norms, cosine)
        return found


def passes_same(quantizer: Quantizer) -> bool:
    """Whether training passes the gradient of evaluation on to the encoder."""
    same_value = quantizer.value_is_code and quantizer.same_indices_in_training
    return same_value and not quantizer.draws_in_training


def _with_gradient(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Arguments whose x has a gradient, also behind a frozen encoder."""
    x = arguments[0] if arguments else named.get("x")
    if not isinstance(x, Tensor) or x.requires_grad or not x.is_floating_point() or not torch.is_grad_enabled():
        return None
    x = x.detach().requires_grad_()
    return ((x, *arguments[1:]), named) if arguments else (arguments, {**named, "x": x})


def loss_of(output: object) -> Tensor | None:
    """The loss that a model's output contains, as those of transformers do; a quantizer's own loss is none."""
    if isinstance(output, QuantizerOutput):
        return None
    loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    return loss if isinstance(loss, Tensor) and loss.dim() == 0 and loss.requires_grad else None
