"""Interchangeable vector quantizers for PyTorch.

    import quantizers

    quantizer = quantizers.create("vq", dim=256, codebook_size=8192, channel_dim=1)
    quantized, indices, loss = quantizer(z)  # z [B, 256, H, W]
    quantizer.decode(indices)  # == quantized

`available()` lists the names that `create` takes. `quantizer.save(path)` and `load(path)` keep a trained one, with
its configuration. `use_implementation` runs a block of code on one implementation of the arithmetic, by name.
"""

from quantizers import configuration, metrics, regularizers, schedules
from quantizers.adapters import plug_in, take_codebook, unplug
from quantizers.anchors import AnchorUpdate
from quantizers.base import Quantizer, QuantizerOutput
from quantizers.bernoulli import BernoulliQuantizer
from quantizers.bsq import BSQ
from quantizers.cross_entropy import code_cross_entropy
from quantizers.dead_codes import DeadCodeReplacement
from quantizers.diveq import DiVeQ
from quantizers.ema import EMAVectorQuantizer
from quantizers.fsp import FSP
from quantizers.fsq import FSQ, levels_for
from quantizers.gradients import reflection, rotation, straight_through
from quantizers.grouped import GroupedQuantizer
from quantizers.gumbel import GumbelQuantizer
from quantizers.ibq import IBQ
from quantizers.identity import Identity
from quantizers.kernels.dispatch import use_implementation
from quantizers.lfq import LFQ
from quantizers.multihead import MultiHeadVectorQuantizer
from quantizers.multiscale import MultiScaleQuantizer
from quantizers.nsvq import NSVQ
from quantizers.optvq import OptVQ
from quantizers.qinco import QINCo
from quantizers.random_projection import RandomProjectionQuantizer
from quantizers.registry import available, create, register
from quantizers.residual import ResidualQuantizer
from quantizers.saving import load, save
from quantizers.simvq import SimVQ
from quantizers.vector import VectorQuantizer
from quantizers.vqbridge import VQBridge
from quantizers.warm_start import warm_start

__version__ = "0.1.0"

__all__ = [
    "BSQ",
    "FSP",
    "FSQ",
    "IBQ",
    "LFQ",
    "NSVQ",
    "AnchorUpdate",
    "BernoulliQuantizer",
    "DeadCodeReplacement",
    "DiVeQ",
    "EMAVectorQuantizer",
    "GroupedQuantizer",
    "GumbelQuantizer",
    "Identity",
    "MultiHeadVectorQuantizer",
    "MultiScaleQuantizer",
    "OptVQ",
    "QINCo",
    "Quantizer",
    "QuantizerOutput",
    "RandomProjectionQuantizer",
    "ResidualQuantizer",
    "SimVQ",
    "VQBridge",
    "VectorQuantizer",
    "available",
    "code_cross_entropy",
    "configuration",
    "create",
    "levels_for",
    "load",
    "metrics",
    "plug_in",
    "reflection",
    "register",
    "regularizers",
    "rotation",
    "save",
    "schedules",
    "straight_through",
    "take_codebook",
    "unplug",
    "use_implementation",
    "warm_start",
]
