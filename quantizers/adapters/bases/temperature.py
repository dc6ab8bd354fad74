"""A base for the contracts of Gumbel quantizers."""

from torch import Tensor, nn

from quantizers.adapters.bases.adapter import Adapter
from quantizers.codebooks.gumbel import GumbelQuantizer
from quantizers.core.base import Quantizer


class GumbelAdapter(Adapter):
    """An adapter with a `temperature` that training loops set, and with a map from the model's channels to
    `quantizer.dim` channels.

    Args:
        project_in: the map, which is learned; an identity if the numbers of channels are equal.
    """

    def __init__(self, quantizer: Quantizer, original: nn.Module, project_in: nn.Module) -> None:
        super().__init__(quantizer, original)
        self.project_in = project_in
        self._set_temperature: float | Tensor = getattr(original, "temperature", 1.0)

    @property
    def temperature(self) -> float | Tensor:
        """τ of every Gumbel quantizer inside.

        If there is none, it is the value that was last set: training loops set and log it at each step, whatever
        the quantizer is.
        """
        return next((quantizer.temperature for quantizer in self._gumbels()), self._set_temperature)

    @temperature.setter
    def temperature(self, value: float) -> None:
        self._set_temperature = value
        for quantizer in self._gumbels():
            quantizer.temperature = value

    def _gumbels(self) -> list[GumbelQuantizer]:
        return [module for module in self.quantizer.modules() if isinstance(module, GumbelQuantizer)]
