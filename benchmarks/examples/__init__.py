"""Models with their own quantizer and with one of this library. The swap is one line.

    python -m benchmarks.examples.image --quantizer fsq     # an image tokenizer: the VQModel of diffusers
    python -m benchmarks.examples.audio --quantizer fsq     # a residual codec: the DacModel of transformers
    python -m benchmarks.examples.speech --quantizer simvq  # a speech codec with FSQ: Xcodec2Model of transformers
    python -m benchmarks.examples.masked --quantizer vq     # masked prediction of speech, as in BEST-RQ

Each trains both with three seeds, which takes less than three minutes on two cores, and measures them on held-out
data. Photographs are scikit-image's; sounds and speech are synthesised.
"""

import importlib.util
import sys

_NEEDED = ("diffusers", "matplotlib", "rich", "transformers", "typer")

if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
    sys.exit(
        f"The examples need {', '.join(missing)} from the extras quantizers-torch[bench,models]: "
        "install them with  pip install -e '.[bench,models]'"
    )
