"""Quantizers in models that exist: `plug_in` and `unplug`, and one file for each contract."""

from quantizers.adapters.bases.adapter import Adapter, CodebookView, Place
from quantizers.adapters.finding import plugged
from quantizers.adapters.plugging import plug_in, take_codebook, unplug
from quantizers.adapters.pretrained import from_pretrained, save_pretrained
from quantizers.adapters.recognition import contracts, register_contract

__all__ = [
    "Adapter",
    "CodebookView",
    "Place",
    "contracts",
    "from_pretrained",
    "plug_in",
    "plugged",
    "register_contract",
    "save_pretrained",
    "take_codebook",
    "unplug",
]
