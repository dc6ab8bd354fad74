"""Interchangeable vector quantizers for PyTorch.

    import quantizers

    quantizer = quantizers.create("vq", dim=256, codebook_size=8192, channel_dim=1)
    quantized, indices, loss = quantizer(z)  # z [B, 256, H, W]
    quantizer.decode(indices)  # == quantized

`available()` lists the names that `create` accepts, and `presets.available()` published tokenizers, which
`create("preset:mimi")` builds. `save(quantizer, path)` and `load(path)` store and restore a trained quantizer
together with its configuration. `fit(quantizer, vectors)` fits codebooks to vectors without an autoencoder, and
`semantic_ids(embeddings)` gives items IDs made of such codes. `use_implementation` selects an implementation of
the arithmetic by name.
"""

import importlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if os.path.isfile(os.path.join(__path__[0], "kernels")):
    raise ImportError(
        f"{os.path.join(__path__[0], 'kernels')} is a text file in place of a symbolic link; clone the repository "
        "with `git clone -c core.symlinks=true` (on Windows this needs the developer mode), or install a wheel"
    )

from quantizers import minimum_torch as _minimum_torch  # noqa: F401 - raises ImportError before others do
from quantizers.codebooks.diveq import DiVeQ
from quantizers.codebooks.ema import EMAVectorQuantizer
from quantizers.codebooks.gaussian_quant import GaussianQuant
from quantizers.codebooks.gumbel import GumbelQuantizer
from quantizers.codebooks.ibq import IBQ
from quantizers.codebooks.multihead import MultiHeadVectorQuantizer
from quantizers.codebooks.nsvq import NSVQ
from quantizers.codebooks.optvq import OptVQ
from quantizers.codebooks.random_projection import RandomProjectionQuantizer
from quantizers.codebooks.simvq import SimVQ
from quantizers.codebooks.spherical_lattice import SphericalLattice
from quantizers.codebooks.vector import VectorQuantizer
from quantizers.codebooks.vqbridge import VQBridge
from quantizers.composite.blends import BlendConvolution
from quantizers.composite.bypass import BypassQuantizer
from quantizers.composite.grouped import GroupedQuantizer
from quantizers.composite.interpolated import InterpolatedQuantizer
from quantizers.composite.multiscale import MultiScaleQuantizer
from quantizers.composite.opq import opq as _opq  # noqa: F401 - registers the name
from quantizers.composite.parallel import ParallelQuantizer
from quantizers.composite.qinco import QINCo
from quantizers.composite.residual import ResidualQuantizer
from quantizers.composite.residual_fsq import residual_fsq as _residual_fsq  # noqa: F401 - registers the name
from quantizers.composite.rotated import RotatedQuantizer
from quantizers.composite.var import VARQuantizer
from quantizers.core.arguments.configurable import configurable
from quantizers.core.base import Quantizer
from quantizers.core.candidates import Candidates
from quantizers.core.gradients import reflection, rotation, straight_through
from quantizers.core.identity import Identity
from quantizers.core.map_quantizer import MapQuantizer
from quantizers.core.name_collision import warn_if_mixed
from quantizers.core.output import QuantizerOutput
from quantizers.core.registry import available, create, options, register, register_scheme
from quantizers.core.row_quantizer import RowQuantizer
from quantizers.core.unused_codes import warn_unused_codes
from quantizers.kernels.common.dispatch import use_implementation
from quantizers.scalar.bernoulli import BernoulliQuantizer
from quantizers.scalar.bsq import BSQ
from quantizers.scalar.dithered_fsq import DitheredFSQ
from quantizers.scalar.fsp import FSP
from quantizers.scalar.fsq import FSQ
from quantizers.scalar.levels import levels_for
from quantizers.scalar.lfq import LFQ
from quantizers.scalar.normalized_fsq import NormalizedFSQ
from quantizers.version import __version__

if TYPE_CHECKING:
    from quantizers import presets
    from quantizers.adapters import plug_in, take_codebook, unplug
    from quantizers.clustering.balanced import balanced_codes
    from quantizers.diagnosis import diagnose
    from quantizers.fitting import fit
    from quantizers.item_ids import SemanticIDs, semantic_ids
    from quantizers.monitoring import metrics
    from quantizers.serialization.configuration import configuration, rebuild
    from quantizers.serialization.saving import load, save
    from quantizers.training import regularizers, schedules
    from quantizers.training.anchors import AnchorUpdate
    from quantizers.training.cross_entropy import code_cross_entropy
    from quantizers.training.dead_codes import DeadCodeReplacement
    from quantizers.training.final_means import final_means
    from quantizers.training.splitting import CodeSplitting
    from quantizers.training.warm_start import warm_start

__all__ = [
    "BSQ",
    "FSP",
    "FSQ",
    "IBQ",
    "LFQ",
    "NSVQ",
    "AnchorUpdate",
    "BernoulliQuantizer",
    "BlendConvolution",
    "BypassQuantizer",
    "Candidates",
    "CodeSplitting",
    "DeadCodeReplacement",
    "DiVeQ",
    "DitheredFSQ",
    "EMAVectorQuantizer",
    "GaussianQuant",
    "GroupedQuantizer",
    "GumbelQuantizer",
    "Identity",
    "InterpolatedQuantizer",
    "MapQuantizer",
    "MultiHeadVectorQuantizer",
    "MultiScaleQuantizer",
    "NormalizedFSQ",
    "OptVQ",
    "ParallelQuantizer",
    "QINCo",
    "Quantizer",
    "QuantizerOutput",
    "RandomProjectionQuantizer",
    "ResidualQuantizer",
    "RotatedQuantizer",
    "RowQuantizer",
    "SemanticIDs",
    "SimVQ",
    "SphericalLattice",
    "VARQuantizer",
    "VQBridge",
    "VectorQuantizer",
    "__version__",
    "available",
    "balanced_codes",
    "code_cross_entropy",
    "configurable",
    "configuration",
    "create",
    "diagnose",
    "final_means",
    "fit",
    "levels_for",
    "load",
    "metrics",
    "options",
    "plug_in",
    "presets",
    "rebuild",
    "reflection",
    "register",
    "regularizers",
    "rotation",
    "save",
    "schedules",
    "semantic_ids",
    "straight_through",
    "take_codebook",
    "unplug",
    "use_implementation",
    "warm_start",
    "warn_unused_codes",
]

warn_if_mixed(__path__[0])

# What most programs do not use, or what needs an extra, is imported when it is first asked for.
_LAZY = {
    "AnchorUpdate": "quantizers.training.anchors:AnchorUpdate",
    "CodeSplitting": "quantizers.training.splitting:CodeSplitting",
    "DeadCodeReplacement": "quantizers.training.dead_codes:DeadCodeReplacement",
    "SemanticIDs": "quantizers.item_ids:SemanticIDs",
    "adapters": "quantizers.adapters",
    "balanced_codes": "quantizers.clustering.balanced:balanced_codes",
    "bitstream": "quantizers.bitstream",
    "code_cross_entropy": "quantizers.training.cross_entropy:code_cross_entropy",
    "configuration": "quantizers.serialization.configuration:configuration",
    "diagnose": "quantizers.diagnosis:diagnose",
    "export": "quantizers.export",
    "final_means": "quantizers.training.final_means:final_means",
    "fit": "quantizers.fitting:fit",
    "hub": "quantizers.serialization.hub",
    "load": "quantizers.serialization.saving:load",
    "metrics": "quantizers.monitoring.metrics",
    "plug_in": "quantizers.adapters:plug_in",
    "presets": "quantizers.presets",
    "rebuild": "quantizers.serialization.configuration:rebuild",
    "regularizers": "quantizers.training.regularizers",
    "save": "quantizers.serialization.saving:save",
    "schedules": "quantizers.training.schedules",
    "semantic_ids": "quantizers.item_ids:semantic_ids",
    "take_codebook": "quantizers.adapters:take_codebook",
    "unplug": "quantizers.adapters:unplug",
    "usage": "quantizers.monitoring.usage",
    "warm_start": "quantizers.training.warm_start:warm_start",
    "watch": "quantizers.monitoring.watch:watch",
}


def _preset(name: str) -> tuple[Any, Mapping[str, object]]:
    from quantizers.presets import resolve

    return resolve(name)


register_scheme("preset", _preset)


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'quantizers' has no attribute {name!r}")
    module, _, attribute = _LAZY[name].partition(":")
    value = importlib.import_module(module)
    if attribute:
        value = getattr(value, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
