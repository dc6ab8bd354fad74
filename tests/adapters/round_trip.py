"""Saving a model with a quantizer plugged in, and loading it."""

import io
from collections.abc import Callable

import torch
from torch import Tensor, nn


def check_loads(plugged: Callable[[], nn.Module], run: Callable[[nn.Module], Tensor]) -> None:
    """The state of a model, saved and loaded into another one that is built alike, gives the same results.

    Args:
        plugged: builds a model and plugs a quantizer into it.
        run: what a model gives for a fixed input.
    """
    model, file = plugged(), io.BytesIO()
    with torch.no_grad():
        for parameter in model.parameters():  # as training moves them
            parameter.add_(0.1 * torch.randn_like(parameter))
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = plugged()
    other.load_state_dict(torch.load(file, weights_only=True))
    with torch.no_grad():
        assert torch.equal(run(other.eval()), run(model.eval()))
