"""An existing model with its own quantizer and with one of this library. The swap is one line.

python -m benchmarks.examples.image --quantizer fsq   # the VQModel of diffusers, on photographs python -m
benchmarks.examples.audio --quantizer fsq   # the DacModel of transformers, on synthesised sounds
"""

import importlib.util
import sys

_NEEDED = ("diffusers", "matplotlib", "rich", "transformers", "typer")

if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
    sys.exit(
        f"The examples need {', '.join(missing)} from the extras quantizers-torch[bench,models]: "
        "install them with  pip install -e '.[bench,models]'"
    )
