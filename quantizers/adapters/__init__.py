"""Put quantizers of this library into existing models, with `plug_in`, and take them out again, with `unplug`.

A model calls its quantizer in its own way: with a layout, a return value and attributes of its own. Each such way
is a contract, and `contracts` has an adapter for each. The other modules here are:

- `plugging`: `plug_in`, `unplug` and `take_codebook`.
- `recognition`: which contract a module follows; `register_contract`.
- `paths`: finds quantizers in a model and replaces modules.
- `reading`: reads the sizes that a model needs from its quantizer.
- `building`: builds a quantizer with these sizes.
- `devices`: puts it on the model's device, also in a model without values on `meta`.
- `model_config`: records it in the model's configuration.
- `pretrained`: `save_pretrained` and `from_pretrained`.
- `torch_package`: lets models that save themselves with torch.package do so.
"""

from quantizers.adapters.bases.adapter import Adapter
from quantizers.adapters.bases.codebook_view import CodebookView
from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.paths import plugged
from quantizers.adapters.plugging import plug_in, take_codebook, unplug
from quantizers.adapters.pretrained import from_pretrained, save_pretrained
from quantizers.adapters.recognition import available_contracts, register_contract

__all__ = [
    "Adapter",
    "CodebookView",
    "QuantizerSpec",
    "available_contracts",
    "from_pretrained",
    "plug_in",
    "plugged",
    "register_contract",
    "save_pretrained",
    "take_codebook",
    "unplug",
]
