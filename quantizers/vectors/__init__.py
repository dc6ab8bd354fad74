"""Vectors from memory, files and streams, in blocks, so that a codebook can be fitted to more than fits in memory.

`open_vectors` (`opening.py`) accepts tensors, arrays, files and iterables of batches, and returns `Vectors`
(`base.py`): their number, their channels, and their blocks, as often as needed. `parts.py` divides them among
ranks, `sampling.py` draws a sample that does not depend on the number of ranks, and `files.py` writes results.
"""

from quantizers.vectors.base import Vectors
from quantizers.vectors.opening import open_vectors

__all__ = ["Vectors", "open_vectors"]
