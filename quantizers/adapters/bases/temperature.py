"""What the contracts of Gumbel quantizers share."""

from torch import Tensor, nn

from quantizers.adapters.bases.adapter import Adapter
from quantizers.codebooks.gumbel import GumbelQuantizer
from quantizers.core.base import Quantizer


class GumbelAdapter(Adapter):
    """An adapter whose `temperature` is set from outside, and which maps the model's channels to its codes'.

    Args: entry: from what the model hands over to `quantizer.dim` channels, learned; an identity where they agree.
    """

    def __init__(self, quantizer: Quantizer, original: nn.Module, entry: nn.Module) -> None:
        super().__init__(quantizer, original)
        self.entry = entry
        self._set_temperature: float | Tensor = getattr(original, "temperature", 1.0)

    @property
    def temperature(self) -> float | Tensor:
        """τ of every Gumbel quantizer inside. Of methods that have none it is what was set last: training loops
        set and log it at each step, whatever the quantizer is."""
        return next((part.temperature for part in self._gumbels()), self._set_temperature)

    @temperature.setter
    def temperature(self, value: float) -> None:
        self._set_temperature = value
        for part in self._gumbels():
            part.temperature = value

    def _gumbels(self) -> list[GumbelQuantizer]:
        return [part for part in self.quantizer.modules() if isinstance(part, GumbelQuantizer)]
