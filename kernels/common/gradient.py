"""Gradients of plain functions."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def gradients_of(
    function: Callable[..., Sequence[Tensor]],
    inputs: Sequence[Tensor],
    wanted: Sequence[bool],
    output_gradients: Sequence[Tensor],
) -> list[Tensor | None]:
    """Return the requested input gradients of a function, given its output gradients, for use in a backward.

    If that backward is itself differentiated, so are the returned gradients.
    """
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        # Separate views: if one input was computed from another, its gradient must not flow to that one.
        own = [each.view_as(each) if wants else each.detach() for each, wants in zip(inputs, wanted, strict=True)]
        outputs = function(*own)
    pairs = [pair for pair in zip(outputs, output_gradients, strict=True) if pair[0].requires_grad]
    found = iter(
        torch.autograd.grad(
            [output for output, _ in pairs],
            [each for each, wants in zip(own, wanted, strict=True) if wants],
            [gradient for _, gradient in pairs],
            create_graph=create_graph,
            materialize_grads=True,
        )
    )
    return [next(found) if wants else None for wants in wanted]
