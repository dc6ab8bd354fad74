"""The known contracts, and which of them a module follows."""

import difflib

from torch import nn

from quantizers.adapters.bases.adapter import Adapter
from quantizers.adapters.contracts.audio.academicodec import AcademiCodecAdapter
from quantizers.adapters.contracts.audio.ace_step import AceStepAdapter
from quantizers.adapters.contracts.audio.audiocraft import AudiocraftAdapter
from quantizers.adapters.contracts.audio.dac import DacAdapter, TransformersDacAdapter
from quantizers.adapters.contracts.audio.dac_stage import DacStageAdapter, TransformersDacStageAdapter
from quantizers.adapters.contracts.audio.dualcodec import DualCodecAdapter
from quantizers.adapters.contracts.audio.encodec import EncodecAdapter, EncodecStagesAdapter
from quantizers.adapters.contracts.audio.encodec_transformers import TransformersEncodecAdapter, XcodecAdapter
from quantizers.adapters.contracts.audio.factorized import BigCodecAdapter, FactorizedAdapter
from quantizers.adapters.contracts.audio.factorized_amphion import AmphionAdapter
from quantizers.adapters.contracts.audio.factorized_spark import SparkAdapter
from quantizers.adapters.contracts.audio.mimi import MimiAdapter
from quantizers.adapters.contracts.audio.moshi import MoshiAdapter
from quantizers.adapters.contracts.audio.nemo_fsq import NemoFSQAdapter, NemoGroupedFSQAdapter
from quantizers.adapters.contracts.audio.nemo_residual import NemoGroupedResidualAdapter, NemoResidualAdapter
from quantizers.adapters.contracts.audio.qwen3_tts import Qwen3TTSAdapter
from quantizers.adapters.contracts.audio.snac import SnacAdapter
from quantizers.adapters.contracts.audio.speechtokenizer import SpeechTokenizerAdapter
from quantizers.adapters.contracts.audio.wav2vec2 import Wav2Vec2Adapter
from quantizers.adapters.contracts.audio.wavtokenizer import WavTokenizerAdapter
from quantizers.adapters.contracts.audio.xcodec2 import Xcodec2Adapter
from quantizers.adapters.contracts.images.chameleon import ChameleonAdapter
from quantizers.adapters.contracts.images.cosmos import CosmosAdapter
from quantizers.adapters.contracts.images.cosmos_fsq import CosmosFSQAdapter
from quantizers.adapters.contracts.images.cosmos_residual_fsq import CosmosResidualFSQAdapter
from quantizers.adapters.contracts.images.emu3 import Emu3Adapter
from quantizers.adapters.contracts.images.gigatok import GigaTokAdapter
from quantizers.adapters.contracts.images.gigatok_fsq import GigaTokFSQAdapter
from quantizers.adapters.contracts.images.glm_image import GlmImageAdapter
from quantizers.adapters.contracts.images.ibq import IBQAdapter
from quantizers.adapters.contracts.images.imagefolder import ImageFolderAdapter
from quantizers.adapters.contracts.images.imagefolder_single import ImageFolderSingleAdapter
from quantizers.adapters.contracts.images.janus import JanusAdapter
from quantizers.adapters.contracts.images.llamagen import LlamaGenAdapter
from quantizers.adapters.contracts.images.open_magvit2 import OpenMagvit2Adapter
from quantizers.adapters.contracts.images.taming import TamingAdapter
from quantizers.adapters.contracts.images.taming_first import TamingFirstAdapter
from quantizers.adapters.contracts.images.taming_gumbel import TamingGumbelAdapter
from quantizers.adapters.contracts.images.titok import TiTokAdapter
from quantizers.adapters.contracts.images.unitok import UniTokAdapter
from quantizers.adapters.contracts.images.var import VarAdapter
from quantizers.adapters.contracts.images.vidtok import VidTokAdapter
from quantizers.adapters.contracts.images.vqvae2 import VQVAE2Adapter
from quantizers.adapters.contracts.images.wetok import WeTokAdapter
from quantizers.adapters.contracts.vector_quantize_pytorch import (
    FSPAdapter,
    FSQAdapter,
    LeRobotAdapter,
    LFQAdapter,
    ResidualFSQAdapter,
    ResidualLFQAdapter,
    ResidualVQAdapter,
    ResidualVQOlderAdapter,
    SimVQAdapter,
    VectorQuantizeAdapter,
    VectorQuantizeOlderAdapter,
)
from quantizers.core.arguments.hints import did_you_mean

_ADAPTERS: tuple[type[Adapter], ...] = (
    AcademiCodecAdapter,
    AceStepAdapter,
    AmphionAdapter,
    AudiocraftAdapter,
    BigCodecAdapter,
    ChameleonAdapter,
    CosmosAdapter,
    CosmosFSQAdapter,
    CosmosResidualFSQAdapter,
    DacAdapter,
    DacStageAdapter,
    DualCodecAdapter,
    Emu3Adapter,
    EncodecAdapter,
    EncodecStagesAdapter,
    FSPAdapter,
    FSQAdapter,
    FactorizedAdapter,
    GigaTokAdapter,
    GigaTokFSQAdapter,
    GlmImageAdapter,
    IBQAdapter,
    ImageFolderAdapter,
    ImageFolderSingleAdapter,
    JanusAdapter,
    LFQAdapter,
    LeRobotAdapter,
    LlamaGenAdapter,
    MimiAdapter,
    MoshiAdapter,
    NemoFSQAdapter,
    NemoGroupedFSQAdapter,
    NemoGroupedResidualAdapter,
    NemoResidualAdapter,
    OpenMagvit2Adapter,
    Qwen3TTSAdapter,
    ResidualFSQAdapter,
    ResidualLFQAdapter,
    ResidualVQAdapter,
    ResidualVQOlderAdapter,
    SimVQAdapter,
    SnacAdapter,
    SparkAdapter,
    SpeechTokenizerAdapter,
    TamingAdapter,
    TamingFirstAdapter,
    TamingGumbelAdapter,
    TiTokAdapter,
    TransformersDacAdapter,
    TransformersDacStageAdapter,
    TransformersEncodecAdapter,
    UniTokAdapter,
    VQVAE2Adapter,
    VarAdapter,
    VectorQuantizeAdapter,
    VectorQuantizeOlderAdapter,
    VidTokAdapter,
    Wav2Vec2Adapter,
    WavTokenizerAdapter,
    WeTokAdapter,
    Xcodec2Adapter,
    XcodecAdapter,
)
_CONTRACTS: dict[str, type[Adapter]] = {adapter.contract: adapter for adapter in _ADAPTERS}


LISTED = "quantizers.adapters.available_contracts() lists the contracts"
"""A part of errors."""


def available_contracts() -> tuple[str, ...]:
    """The names of all contracts, sorted; `contracts/__init__.py` has a table."""
    return tuple(sorted(_CONTRACTS))


def register_contract(adapter: type[Adapter]) -> None:
    """Make a contract of your own known under its name, so that `plug_in` finds the modules that follow it.

    Args:
        adapter: a subclass of Adapter, the contract. If several contracts recognize a module, the one that was
            registered first is used.

    Raises: ValueError for a name that is taken.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from quantizers.adapters import Adapter, QuantizerSpec, available_contracts, register_contract
        >>> class MyQuantizer(nn.Module):
        ...     table = nn.Parameter(torch.randn(16, 4))
        >>> class MyAdapter(Adapter):
        ...     contract, classes = "mine", ("MyQuantizer",)
        ...     @classmethod
        ...     def read_spec(cls, original):
        ...         return QuantizerSpec(dim=4, codebook_size=16, channel_dim=-1)
        ...     @classmethod
        ...     def trained_codebook(cls, original):  # optional, for keep_codebook=True
        ...         return original.table
        ...     def forward(self, x):  # returns what the model expects: here the vectors alone
        ...         return self.quantizer(x).quantized
        >>> MyAdapter.recognizes(MyQuantizer())
        True
        >>> register_contract(MyAdapter)  # doctest: +SKIP
        >>> model = plug_in(nn.Sequential(nn.Linear(3, 4), MyQuantizer()), "simvq")  # doctest: +SKIP
    """
    if adapter.contract in _CONTRACTS:
        raise ValueError(f"a contract named {adapter.contract!r} is registered already")
    _CONTRACTS[adapter.contract] = adapter


def contract_named(name: str) -> type[Adapter]:
    """The contract with a name. Raises: ValueError for an unknown name; the message lists similar ones."""
    if name not in _CONTRACTS:
        near = difflib.get_close_matches(name.lower(), _CONTRACTS, n=3, cutoff=0.4)
        raise ValueError(f"no contract is named {name!r}; {did_you_mean(near)}{LISTED}")
    return _CONTRACTS[name]


def contracts_of(module: nn.Module) -> list[type[Adapter]]:
    """The contracts that recognize a module by its name and attributes; for an adapter its own alone."""
    if isinstance(module, Adapter):
        return [type(module)]
    return [adapter for adapter in _CONTRACTS.values() if adapter.recognizes(module)]


def contract_of(module: nn.Module) -> type[Adapter] | None:
    """The first of `contracts_of` a module; None if no contract recognizes it."""
    return next(iter(contracts_of(module)), None)


def parent_contract(module: nn.Module) -> tuple[type[Adapter], type] | None:
    """The contract of a class that a module's class derives from, and that class; None if there is none."""
    for base in type(module).__mro__[1:]:
        for adapter in _CONTRACTS.values():
            if base.__name__ in adapter.classes and adapter.reads(module):
                return adapter, base
    return None


def overridden_methods(module: nn.Module, contract: type[Adapter]) -> list[str]:
    """The public methods of a contract that a module's class overrides in a class that the contract replaces."""
    names = [base.__name__ for base in type(module).__mro__]
    last = max((place for place, name in enumerate(names) if name in contract.classes), default=0)
    own = {name for base in type(module).__mro__[:last] for name in vars(base)}
    return sorted(name for name in own if not name.startswith("_") and hasattr(contract, name))
