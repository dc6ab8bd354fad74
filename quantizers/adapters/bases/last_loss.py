"""For contracts whose models take no loss of their quantizer."""

from typing import Any

from torch import Tensor

from quantizers.adapters.bases.adapter import Adapter


class LastLossAdapter(Adapter):
    """Holds the loss of the last forward, for the training step to add. Copies and pickles are without it: it
    belongs to a graph."""

    loss: Tensor | None = None
    """The quantizer's loss in the last forward, [], already weighted, of all vectors; None before the first."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "loss"}
