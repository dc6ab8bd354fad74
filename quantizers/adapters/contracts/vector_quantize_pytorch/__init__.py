"""Contracts for the quantizers of the package vector-quantize-pytorch (tested with version 1.32)."""

from quantizers.adapters.contracts.vector_quantize_pytorch.fsp import FSPAdapter
from quantizers.adapters.contracts.vector_quantize_pytorch.fsq import FSQAdapter
from quantizers.adapters.contracts.vector_quantize_pytorch.lerobot import LeRobotAdapter
from quantizers.adapters.contracts.vector_quantize_pytorch.lfq import LFQAdapter
from quantizers.adapters.contracts.vector_quantize_pytorch.residual_fsq import ResidualFSQAdapter
from quantizers.adapters.contracts.vector_quantize_pytorch.residual_lfq import ResidualLFQAdapter
from quantizers.adapters.contracts.vector_quantize_pytorch.residual_vq import ResidualVQAdapter
from quantizers.adapters.contracts.vector_quantize_pytorch.residual_vq_older import ResidualVQOlderAdapter
from quantizers.adapters.contracts.vector_quantize_pytorch.simvq import SimVQAdapter
from quantizers.adapters.contracts.vector_quantize_pytorch.vector_quantize import VectorQuantizeAdapter
from quantizers.adapters.contracts.vector_quantize_pytorch.vector_quantize_older import VectorQuantizeOlderAdapter

__all__ = [
    "FSPAdapter",
    "FSQAdapter",
    "LFQAdapter",
    "LeRobotAdapter",
    "ResidualFSQAdapter",
    "ResidualLFQAdapter",
    "ResidualVQAdapter",
    "ResidualVQOlderAdapter",
    "SimVQAdapter",
    "VectorQuantizeAdapter",
    "VectorQuantizeOlderAdapter",
]
