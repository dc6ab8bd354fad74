"""A base for contracts whose models take no loss from their quantizer."""

from typing import Any

from torch import Tensor

from quantizers.adapters.bases.adapter import Adapter


class LastLossAdapter(Adapter):
    """Holds the loss of the last forward, so that the training step can add it.

    Copies and pickles do not contain the loss, because it belongs to a graph.
    """

    loss: Tensor | None = None
    """The quantizer's weighted loss in the last forward, over all vectors: []. None before the first forward."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "loss"}
