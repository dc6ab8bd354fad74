"""SNAC's quantizer, in a stand-in."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quantizers import (
    MultiScaleQuantizer,
    VARQuantizer,
    VectorQuantizer,
    plug_in,
    take_codebook,
    unplug,
    warm_start,
)
from quantizers.adapters.recognition import contract_of
from tests.adapters.audio import stand_in_dac
from tests.adapters.audio.checks import check_saved, two_methods
from tests.adapters.audio.dac_bounds import assert_agrees
from tests.adapters.audio.stand_in_snac import SNAC, ResidualVectorQuantize
from tests.adapters.common import METHODS, check_unplugs, loss_falls, tones

WIDTH, CODES, CODE_DIM, STRIDES, FRAMES = 16, 16, 4, (4, 2, 1), 40
LENGTHS = [FRAMES // stride for stride in STRIDES]


def original(strides: tuple[int, ...] = STRIDES, codes: int = CODES) -> ResidualVectorQuantize:
    torch.manual_seed(0)
    return ResidualVectorQuantize(WIDTH, codes, CODE_DIM, strides)


def build() -> Any:
    torch.manual_seed(0)
    return SNAC(WIDTH, STRIDES, codebook_size=CODES, codebook_dim=CODE_DIM)


ORIGINALS: dict[str, Callable[[], nn.Module]] = {"snac": original}


def audio() -> Tensor:
    """Two pieces, a few samples short of FRAMES vectors."""
    return tones()[..., :-3]


@pytest.mark.parametrize("name", METHODS)
def test_trains_encodes_and_decodes(name: str) -> None:
    model, x = build(), audio()
    assert plug_in(model, name) is model
    loss_falls(model, lambda: (F.mse_loss(model(x)[0], x), model.quantizer.loss))
    model.eval()
    heard, codes = model(x)
    assert [tuple(own.shape) for own in codes] == [(2, length) for length in LENGTHS]
    assert all(torch.equal(own, other) for own, other in zip(model.encode(x), codes, strict=True))
    torch.testing.assert_close(model.decode(codes)[..., : x.shape[-1]], heard)
    assert len(set(model.quantizer.quantizer.components)) == len(STRIDES)


@two_methods
def test_saved_and_loaded(name: str, tmp_path: Path) -> None:
    model, x = plug_in(build(), name), audio()
    model(x)
    check_saved(model, "quantizer", build, tmp_path, lambda codec: [codec(x)[0], *codec.encode(x)])
    assert torch.equal(copy.deepcopy(model)(x)[0], model(x)[0])


@torch.no_grad()
@pytest.mark.parametrize("name", ["vq", "ema_vq", "simvq", "rotation_vq"])
def test_kept_codebooks_give_what_the_model_gave(name: str) -> None:
    model = build().eval()
    z, codebook, own = model.encoder(model.preprocess(audio())), take_codebook(model), model.quantizer
    assert codebook.shape == (len(STRIDES), CODES, CODE_DIM)
    reference, codes = own(z)
    plug_in(model, name, keep_codebook=True)
    assert torch.equal(take_codebook(model), codebook)
    quantized, found = model.quantizer(z)
    latents = torch.cat([*stage_latents(own, z, codes)], 1)
    assert_agrees((quantized, at_full_rate(found), latents), (reference, at_full_rate(codes), latents), z, own)
    decoded = [(module.from_codes(codes), at_full_rate(codes), latents) for module in (model.quantizer, own)]
    assert_agrees(*decoded, z, own)
    assert unplug(model).quantizer is own


def at_full_rate(codes: list[Tensor]) -> Tensor:
    """Codes [B, stages, FRAMES]."""
    return torch.stack([own.repeat_interleave(FRAMES // own.shape[-1], -1) for own in codes], 1)


def stage_latents(module: Any, z: Tensor, codes: list[Tensor]) -> Any:
    """The latents of each stage of the original, [B, CODE_DIM, FRAMES]."""
    for stage, own in zip(module.quantizers, codes, strict=True):
        yield stage.in_proj(F.avg_pool1d(z, stage.stride)).repeat_interleave(stage.stride, -1)
        z = z - stage.out_proj(stage.decode_code(own)).repeat_interleave(stage.stride, -1)


def test_the_gradient_is_the_original_s() -> None:
    """Straight through each stage's projections, also where a mean and a repetition lie around them."""
    z = torch.randn(2, WIDTH, FRAMES, generator=torch.Generator().manual_seed(1), requires_grad=True)
    weights, gradients = torch.linspace(-1, 1, FRAMES), []
    for module in (original(), plug_in(original(), "vq", keep_codebook=True)):
        quantized, _ = module(z)
        gradients += torch.autograd.grad((quantized * weights).sum(), z)
    torch.testing.assert_close(*gradients)


# What models read


def test_what_models_read_of_its_stages() -> None:
    model = build().eval()
    own = model.quantizer
    plug_in(model, "vq", keep_codebook=True)
    new, z = model.quantizer, torch.randn(2, WIDTH, 8)
    for name in ("n_codebooks", "codebook_size", "codebook_dim"):
        assert getattr(new, name) == getattr(own, name)
    codes = torch.arange(CODES).reshape(2, -1)
    for stage, other in zip(new.quantizers, own.quantizers, strict=True):
        assert (stage.stride, stage.codebook_size) == (other.stride, other.codebook_size)
        torch.testing.assert_close(stage.in_proj(z), other.in_proj(z))
        vectors = stage.decode_code(codes)
        assert torch.equal(vectors, other.decode_code(codes))
        torch.testing.assert_close(stage.out_proj(vectors), other.out_proj(vectors))


def test_a_model_in_half_precision_decodes_its_codes() -> None:
    model = plug_in(build().eval(), "vq").bfloat16()
    z = model.encoder(model.preprocess(audio()).bfloat16())
    quantized, codes = model.quantizer(z)
    decoded = model.quantizer.from_codes(codes)
    assert decoded.dtype == quantized.dtype == torch.bfloat16
    assert torch.equal(decoded, quantized)


def test_unplug_puts_back_what_stood_there() -> None:
    model = build().eval()
    check_unplugs(model, "quantizer", lambda: model(audio())[0])


def test_warm_start_sees_what_the_adapter_quantizes() -> None:
    model = plug_in(build(), "vq")
    before = take_codebook(model)
    warm_start(model, [audio()])
    assert (take_codebook(model) != before).any(-1).all()


# Which quantizers fit


def test_stages_share_a_codebook_if_asked_to() -> None:
    shared = plug_in(build(), "vq", shared=True).quantizer.quantizer
    assert len(shared.quantizers) == 1
    assert len(shared.components) == len(STRIDES)
    with pytest.raises(ValueError, match="cannot keep the codebooks of SNAC, whose stages have one each"):
        plug_in(build(), "vq", shared=True, keep_codebook=True)


def test_one_loss_for_all_scales_projects_once() -> None:
    """VAR's, which compares with the sum of all scales."""
    model, x = plug_in(build(), "var"), audio()
    quantizer = model.quantizer.quantizer
    assert isinstance(quantizer, VARQuantizer)
    assert (quantizer.axes, quantizer.interpolation, quantizer.code_dim) == (1, "nearest", CODE_DIM)
    loss_falls(model, lambda: (F.mse_loss(model(x)[0], x), model.quantizer.loss), rate=1e-2)
    with pytest.raises(ValueError, match="a stage is VectorQuantizer of 4 channels, which has no projection"):
        _ = model.quantizer.quantizers[0].in_proj
    with pytest.raises(ValueError, match="VARQuantizer cannot keep the codebooks of SNAC"):
        plug_in(build(), "var", keep_codebook=True)


def test_one_that_is_built_is_taken() -> None:
    parts = [VectorQuantizer(WIDTH, size) for size in (8, 4)]
    new = plug_in(original((2, 1)), MultiScaleQuantizer(WIDTH, parts, scales=[0.5, 1], axes=1, channel_dim=1))
    _, codes = new(torch.randn(1, WIDTH, 6))
    assert [own.shape[1] for own in codes] == [3, 6]
    for axes, count, message in (
        (2, 2, "with axes=2, but this model quantizes audio"),
        (1, 3, "has 3 scales, but"),
    ):
        scales = [(place + 1) / count for place in range(count)]
        parts = [VectorQuantizer(WIDTH, 4) for _ in range(count)]
        with pytest.raises(ValueError, match=message):
            plug_in(original((2, 1)), MultiScaleQuantizer(WIDTH, parts, scales=scales, axes=axes, channel_dim=1))
    with pytest.raises(ValueError, match="VectorQuantizer, which has no scales"):
        plug_in(original((2, 1)), VectorQuantizer(WIDTH, 8, channel_dim=1))


@pytest.mark.parametrize("name", ["fsq", "gumbel", "lfq"])
def test_what_does_not_search_as_the_original_keeps_no_codebook(name: str) -> None:
    with pytest.raises(ValueError, match="cannot keep a codebook of DAC"):
        plug_in(build(), name, keep_codebook=True)


@pytest.mark.parametrize("options", [{"interpolation": "linear"}, {"entry": nn.LayerNorm(WIDTH)}])
def test_what_does_more_than_add_up_keeps_no_codebook(options: Any) -> None:
    with pytest.raises(ValueError, match="MultiScaleQuantizer cannot keep the codebooks of SNAC"):
        plug_in(build(), "vq", keep_codebook=True, **options)


@pytest.mark.parametrize("strides", [(1, 1, 1), (2, 2, 1), (1, 2), (4, 2)])
def test_strides_that_do_not_fall_to_one_are_named(strides: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"has stages with strides .*; expected strides that fall to 1"):
        plug_in(original(strides), "vq")


# Which modules it is


def test_it_is_told_apart_from_dac() -> None:
    dac = stand_in_dac.ResidualVectorQuantize(WIDTH, 2, CODES, CODE_DIM)
    found = [contract_of(module) for module in (original(), dac, dac.quantizers[0])]
    assert [contract.contract for contract in found if contract] == ["snac", "dac", "dac_stage"]
    assert all(contract_of(stage) is None for stage in original().quantizers)
    with pytest.raises(ValueError, match="follows no known contract"):
        plug_in(build(), "vq", at="quantizer.quantizers.0")


def test_an_unknown_option_is_named_with_all_that_there_are() -> None:
    with pytest.raises(TypeError, match=r"no option .decai.* MultiScaleQuantizer takes"):
        plug_in(build(), "ema_vq", decai=0.9)


@torch.no_grad()
def test_the_package_s_own_model_keeps_its_codes() -> None:
    """It gives the same audio and, but for codes between two, the same codes; its stages are not touched."""
    package = pytest.importorskip("snac", reason="the extra `models` has it")
    torch.manual_seed(0)
    model = package.SNAC(16000, 8, [2, 4], None, 32, [4, 2], None, 64, CODE_DIM, list(STRIDES), noise=False).eval()
    x = 0.5 * torch.randn(2, 1, 800)
    heard, codes = model(x)
    own = model.quantizer
    plug_in(model, "vq", keep_codebook=True)
    assert model.quantizer.contract == "snac"
    new_heard, new_codes = model(x)
    for new, old in zip(new_codes, codes, strict=True):
        assert (new == old).float().mean() > 0.95  # a code between two changes those of the stages after it
    if all(torch.equal(*pair) for pair in zip(new_codes, codes, strict=True)):
        torch.testing.assert_close(new_heard, heard, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(*pair) for pair in zip(model.encode(x), new_codes, strict=True))
    torch.testing.assert_close(model.decode(new_codes)[..., : x.shape[-1]], new_heard)
    assert unplug(model).quantizer is own
