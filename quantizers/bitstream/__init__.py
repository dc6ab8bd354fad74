"""Codes to bytes and back: an entropy coder for indices, on the constriction package (the extra `codec`).

A stream is a header (`header.py`: version, shape, sizes of the codebooks) and one range coded payload
(`coder.py`). The probabilities come from one of three models: the counts of the indices themselves, which are
sent along; counts that both sides have (`static.py`); or a distribution for each position, as a prior gives it
(`positions.py`, and `steps.py` for priors that need what was decoded before).
"""

from quantizers.bitstream.alphabet import Alphabet, Section
from quantizers.bitstream.codec import compress, decompress
from quantizers.bitstream.header import BitstreamError
from quantizers.bitstream.positions import Probabilities
from quantizers.bitstream.static import Counts, OwnCounts
from quantizers.bitstream.steps import Decoder, Encoder

__all__ = [
    "Alphabet",
    "BitstreamError",
    "Counts",
    "Decoder",
    "Encoder",
    "OwnCounts",
    "Probabilities",
    "Section",
    "compress",
    "decompress",
]
