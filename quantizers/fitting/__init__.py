"""Codebooks fitted to vectors without an autoencoder, from data that may be larger than memory."""

from quantizers.fitting.encoding import encode_vectors
from quantizers.fitting.report import CodebookUse, FitReport, Pass, Progress
from quantizers.fitting.run import fit

__all__ = ["CodebookUse", "FitReport", "Pass", "Progress", "encode_vectors", "fit"]
