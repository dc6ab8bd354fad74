"""Quantizers in models that exist: `plug_in` and `unplug`, and one file for each contract."""

from quantizers.adapters.adapter import Adapter, CodebookView, Place
from quantizers.adapters.contracts import contracts, register_contract
from quantizers.adapters.plugging import plug_in, plugged, take_codebook, unplug

__all__ = [
    "Adapter",
    "CodebookView",
    "Place",
    "contracts",
    "plug_in",
    "plugged",
    "register_contract",
    "take_codebook",
    "unplug",
]
