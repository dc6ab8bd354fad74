"""Small models of diffusers and transformers with a quantizer, by name, and subclasses that plug one in."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from quantizers import plug_in
from quantizers.adapters import plugged
from tests.adapters.common import METHODS, one_in_three

TESTS = {
    "vqmodel": "images.test_diffusers",
    "chameleon": "images.test_chameleon",
    "dac": "audio.test_dac",
    "emu3": "images.test_emu3",
    "encodec": "audio.test_encodec_transformers",
    "glm_image": "images.test_glm_image",
    "janus": "images.test_janus",
    "mimi": "audio.test_mimi",
    "wav2vec2": "audio.test_wav2vec2",
    "xcodec2": "audio.test_xcodec2",
}
NAMES = (*TESTS, "xcodec")


def pairs(*, without: tuple[str, ...] = ()) -> Any:
    """Each model with each of the main methods: a third of the pairs in `make test`, the others in `make fuzz`."""
    found = []
    for row, model_name in enumerate(name for name in NAMES if name not in without):
        for column, name in enumerate(METHODS):
            marks = one_in_three(row, column)
            found.append(pytest.param(model_name, name, marks=marks, id=f"{model_name}-{name}"))
    return pytest.mark.parametrize(("model_name", "name"), found)


def build(name: str) -> Any:
    """A model with its own quantizer."""
    if name == "xcodec":
        return _xcodec()
    module = pytest.importorskip(f"tests.adapters.{TESTS[name]}", reason="the extra `models` has it")
    return module.build("transformers")[0] if name == "dac" else module.build()


def rebuilt(cls: Any, model: Any) -> Any:
    """A model of a class from the configuration of another."""
    if hasattr(model, "register_to_config"):
        config = {key: value for key, value in model.config.items() if not key.startswith("_")}
        return cls.from_config(config)
    return cls(copy.deepcopy(model.config))


def plugging(model: Any, quantizer: str) -> Any:
    """A class as that of a model which plugs a quantizer into itself in its constructor."""
    base = type(model)
    if hasattr(model, "register_to_config"):
        return _diffusers_class(base, quantizer)

    class Plugging(base):  # type: ignore[misc, valid-type]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            plug_in(self, quantizer)

    Plugging.__name__ = base.__name__
    return Plugging


def _diffusers_class(base: Any, quantizer: str) -> Any:
    """Its library reads the options of a model from the constructor's signature."""
    from diffusers.configuration_utils import register_to_config

    class Plugging(base):  # type: ignore[misc, valid-type]
        @register_to_config
        def __init__(
            self,
            block_out_channels: Any = (8, 16),
            down_block_types: Any = ("DownEncoderBlock2D",) * 2,
            up_block_types: Any = ("UpDecoderBlock2D",) * 2,
            latent_channels: int = 8,
            num_vq_embeddings: int = 64,
            norm_num_groups: int = 4,
            mid_block_add_attention: bool = False,
        ) -> None:
            super().__init__(
                block_out_channels=block_out_channels,
                down_block_types=down_block_types,
                up_block_types=up_block_types,
                latent_channels=latent_channels,
                num_vq_embeddings=num_vq_embeddings,
                norm_num_groups=norm_num_groups,
                mid_block_add_attention=mid_block_add_attention,
            )
            plug_in(self, quantizer)

    Plugging.__name__ = base.__name__
    return Plugging


def codes(model: nn.Module) -> list[Tensor]:
    """Indices and vectors that the quantizers plugged into a model give for the same random vectors."""
    found = []
    for adapter in plugged(model).values():
        quantizer = adapter.quantizer
        axis = quantizer.channel_dim
        shape = [2, 5, quantizer.dim] if axis < 0 else [*(2, 3)[:axis], quantizer.dim, 5]
        x = torch.randn(shape, generator=torch.Generator().manual_seed(3))
        indices = quantizer.encode(x)
        found += [indices, quantizer.decode(indices)]
    assert found, "nothing is plugged in"
    return found


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer of a model, and the tensors in attributes of this library's modules."""
    attributes = {
        f"{name}.{key}": value
        for name, module in model.named_modules()
        if type(module).__module__.startswith("quantizers.")
        for key, value in vars(module).items()
        if isinstance(value, Tensor)
    }
    return {**attributes, **dict(model.named_parameters()), **dict(model.named_buffers())}


def check_filled(model: nn.Module) -> None:
    """No tensor of a model is on `meta`, and none is uninitialized memory, which tests fill with NaN.

    The model can be moved: what a module holds besides has values too.
    """
    model.to("cpu")
    for name, tensor in tensors(model).items():
        assert not tensor.is_meta, name
        assert not tensor.is_floating_point() or tensor.isfinite().all(), name


def _xcodec() -> Any:
    transformers = pytest.importorskip("transformers", reason="the extra `models` has it")
    from benchmarks.peers import configurations  # imports transformers, so only after the check

    torch.manual_seed(0)
    return transformers.XcodecModel(configurations.xcodec())
