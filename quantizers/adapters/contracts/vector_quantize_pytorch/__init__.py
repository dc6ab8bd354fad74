"""The quantizers of the package vector-quantize-pytorch (version 1.32): a contract for each family of classes."""

from quantizers.adapters.contracts.vector_quantize_pytorch.fsp import FSPAdapter
from quantizers.adapters.contracts.vector_quantize_pytorch.fsq import FSQAdapter, LFQAdapter
from quantizers.adapters.contracts.vector_quantize_pytorch.residual import (
    ResidualFSQAdapter,
    ResidualLFQAdapter,
    ResidualVQAdapter,
)
from quantizers.adapters.contracts.vector_quantize_pytorch.single import SimVQAdapter, VectorQuantizeAdapter

__all__ = [
    "FSPAdapter",
    "FSQAdapter",
    "LFQAdapter",
    "ResidualFSQAdapter",
    "ResidualLFQAdapter",
    "ResidualVQAdapter",
    "SimVQAdapter",
    "VectorQuantizeAdapter",
]
