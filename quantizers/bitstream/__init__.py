"""Codes to bytes and back: an entropy coder for indices, based on the constriction package (the extra `codec`).

A stream consists of a header (`header.py`: version, shape, sizes of the codebooks) and a range-coded payload
(`coder.py`). The probabilities come from one of three models: the counts of the indices themselves, which the
stream contains; counts that both sides have (`static.py`); or a distribution per position, from a prior
(`positions.py`, and `steps.py` for priors that depend on the indices decoded before).
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
