"""Originals by contract: functions that make a small module of the class that the contract replaces."""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from quantizers.adapters.recognition import _CONTRACTS
from tests.adapters import models
from tests.adapters.audio import stand_in_dac, stand_in_encodec
from tests.adapters.images import stand_in_taming, stand_in_var, stand_in_vqvae2

WIDTH, CODES = 8, 16
OWN_CONTRACTS = tuple(name for name in _CONTRACTS if _CONTRACTS[name].__module__.startswith("quantizers."))

IN_MODELS = {
    "taming": ("vqmodel", "quantize"),
    "chameleon": ("chameleon", "quantize"),
    "dac_transformers": ("dac", "quantizer"),
    "dac_stage_transformers": ("dac", "quantizer.quantizers.0"),
    "emu3": ("emu3", "quantize"),
    "encodec_transformers": ("encodec", "quantizer"),
    "glm_image": ("glm_image", "quantize"),
    "janus": ("janus", "quantize"),
    "mimi": ("mimi", "quantizer.acoustic_residual_vector_quantizer"),
    "wav2vec2": ("wav2vec2", "quantizer"),
    "xcodec": ("xcodec", "quantizer"),
}
"""Contracts of diffusers and transformers: the model in `models.py`, and the end of its quantizer's path."""

OF_PACKAGE = {
    "vector_quantize_pytorch": "VectorQuantize",
    "vector_quantize_pytorch_fsp": "FSP",
    "vector_quantize_pytorch_fsq": "FSQ",
    "vector_quantize_pytorch_lfq": "LFQ",
    "vector_quantize_pytorch_residual": "ResidualVQ",
    "vector_quantize_pytorch_residual_fsq": "ResidualFSQ",
    "vector_quantize_pytorch_residual_lfq": "ResidualLFQ",
    "vector_quantize_pytorch_simvq": "SimVQ",
}


def _in_model(name: str, end: str) -> nn.Module:
    model = models.build(name)
    original = next(module for path, module in model.named_modules() if path == end or path.endswith(f".{end}"))
    for name, buffer in original.named_buffers():
        if name.endswith(("embed", "embed_sum")) and not buffer.any():  # moving averages start at zero
            buffer.normal_()
    return original


def _of_package(name: str) -> nn.Module:
    package = import_module("tests.adapters.vector_quantize_pytorch.package")
    original: nn.Module = package.made(name)
    return original


def _seeded(make: Callable[..., nn.Module], *given: Any, **named: Any) -> nn.Module:
    torch.manual_seed(0)
    return make(*given, **named)


def _encodec(name: str) -> nn.Module:
    sizes = {"num_quantizers": 3, "dim": WIDTH, "codebook_size": CODES}
    if name == "encodec":
        return _seeded(stand_in_encodec.ResidualVectorQuantizer, WIDTH, 3, CODES)
    return _seeded(stand_in_encodec.ResidualVectorQuantization, **sizes)


STAND_INS: dict[str, Callable[[], nn.Module]] = {
    "dac": partial(_seeded, stand_in_dac.ResidualVectorQuantize, WIDTH, 3, CODES, 4),
    "dac_stage": partial(_seeded, stand_in_dac.VectorQuantize, WIDTH, CODES, 4, norm=weight_norm),
    "encodec": partial(_encodec, "encodec"),
    "encodec_stages": partial(_encodec, "encodec_stages"),
    "taming_first": partial(_seeded, stand_in_taming.VectorQuantizer, CODES, WIDTH, 0.25),
    "taming_gumbel": partial(_seeded, stand_in_taming.GumbelQuantize, WIDTH, WIDTH, CODES),
    "var": partial(
        _seeded, stand_in_var.VectorQuantizer2, CODES, WIDTH, using_znorm=False, v_patch_nums=(1, 2, 3, 4)
    ),
    "vqvae2": partial(_seeded, stand_in_vqvae2.Quantize, WIDTH, CODES),
}


def _listed() -> dict[str, Callable[[], nn.Module]]:
    """What the test files of contracts list as ORIGINALS, without those of packages that are not installed."""
    found: dict[str, Callable[[], nn.Module]] = {}
    for file in sorted(Path(__file__).parent.glob("*/test_*.py")):
        if "\nORIGINALS: " not in file.read_text(encoding="utf-8"):
            continue
        try:
            found |= import_module(f"tests.adapters.{file.parent.name}.{file.stem}").ORIGINALS
        except pytest.skip.Exception:
            continue
    return found


ORIGINALS: dict[str, Callable[[], nn.Module]] = {
    **STAND_INS,
    **{contract: partial(_in_model, *place) for contract, place in IN_MODELS.items()},
    **{contract: partial(_of_package, name) for contract, name in OF_PACKAGE.items()},
    **_listed(),
}
