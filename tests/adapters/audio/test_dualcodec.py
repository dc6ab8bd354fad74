"""DualCodec's quantizers, in a stand-in."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import quantizers
from quantizers import plug_in, take_codebook, unplug
from quantizers.adapters.recognition import contract_of
from tests.adapters.audio import stand_in_dac
from tests.adapters.audio.checks import check_saved, two_methods
from tests.adapters.audio.dac_bounds import assert_agrees
from tests.adapters.audio.stand_in_dualcodec import DualCodec, ResidualVectorQuantize
from tests.adapters.common import METHODS, loss_falls, tones

WIDTH, STAGES, CODES, CODE_DIM, FEATURES, FRAMES = 16, 3, 16, 4, 6, 40
SIZES = {"n_codebooks": STAGES, "codebook_size": CODES, "codebook_dim": CODE_DIM}
PLACES = ["semantic_vq", "dac.quantizer"]


def original(**options: Any) -> ResidualVectorQuantize:
    torch.manual_seed(0)
    return ResidualVectorQuantize(WIDTH, **{**SIZES, **options})


def build(**options: Any) -> Any:
    torch.manual_seed(0)
    return DualCodec(FEATURES, WIDTH, 8, **{**SIZES, **options})


ORIGINALS: dict[str, Callable[[], nn.Module]] = {"dualcodec": original}


def batch() -> tuple[Tensor, Tensor]:
    """Audio [2, 1, 4 · FRAMES] and features [2, FEATURES, FRAMES]."""
    time = torch.arange(FRAMES) / 5
    features = torch.stack([(time * (place + 1)).sin() for place in range(FEATURES)])
    return tones(), torch.stack([features, features.flip(1)])


def vectors() -> Tensor:
    return torch.randn(2, WIDTH, FRAMES, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", METHODS)
def test_trains_encodes_and_decodes(name: str) -> None:
    model, (audio, features) = build(quantizer_dropout=0.5), batch()
    assert plug_in(model, name, at=PLACES) is model
    assert model.dac.quantizer.quantizer.dropout == 0.5

    def losses() -> tuple[Tensor, Tensor]:
        out = model(audio, features)
        error = F.mse_loss(out["x"], audio) + F.mse_loss(out["features"], features)
        return error, 0.25 * out["penalty"] + out["codebook"]

    loss_falls(model, losses)
    model.eval()
    semantic, acoustic = model.encode(audio, features)
    assert (semantic.shape, acoustic.shape) == ((2, 1, FRAMES), (2, STAGES, FRAMES))
    assert torch.equal(model.semantic_quantize(features), semantic[:, 0])
    torch.testing.assert_close(model.decode_from_codes(semantic, acoustic), model(audio, features)["x"])
    _, two = model.encode(audio, features, 2)
    assert torch.equal(two, acoustic[:, :2])


@two_methods
def test_saved_and_loaded(name: str, tmp_path: Path) -> None:
    model = nn.Sequential(plug_in(original(), name))
    check_saved(model, "0", lambda: nn.Sequential(original()), tmp_path, lambda holder: holder(vectors()))


@torch.no_grad()
@pytest.mark.parametrize("name", ["vq", "ema_vq", "simvq", "rotation_vq"])
def test_kept_codebook_gives_what_the_model_gave(name: str) -> None:
    holder, z = nn.Sequential(original()).eval(), vectors()
    own, codebook = holder[0], take_codebook(holder)
    plug_in(holder, name, keep_codebook=True)
    assert torch.equal(take_codebook(holder), codebook)
    for count in (None, 1, 2):
        reference, new = own(z, count), holder[0](z, count)
        assert_agrees(new[:3], reference[:3], z, own)
        width = reference[2].shape[1] // reference[1].shape[1]
        of_first = [(out[5], out[1][:, :1], out[2][:, :width]) for out in (new, reference)]
        assert_agrees(*of_first, z, own)
    _, codes, latents, *_ = own(z)
    for found, expected in (
        (holder[0].from_codes(codes), own.from_codes(codes)),
        (holder[0].from_latents(latents), own.from_latents(latents)),
    ):
        assert_agrees((found[0], codes, latents), (expected[0], codes, latents), z, own)
        assert torch.equal(found[1], expected[1])
        assert torch.equal(found[2], expected[2])


@pytest.mark.parametrize("training", [True, False])
def test_the_value_of_the_first_stage_has_a_gradient(training: bool) -> None:
    """As the original's: a model that distills into the first codebook trains through it."""
    weights, found = torch.linspace(-1, 1, FRAMES), []
    for module in (original(), plug_in(original(), "vq", keep_codebook=True)):
        z = vectors().requires_grad_()
        *_, first = module.train(training)(z)
        found.append((first, *torch.autograd.grad((first * weights).sum(), z)))
    for new, expected in zip(*found, strict=True):
        torch.testing.assert_close(new, expected)


def test_the_value_of_the_first_stage_stays_where_others_drop_out() -> None:
    module, z = plug_in(original(quantizer_dropout=1.0), "vq").train(), vectors()
    torch.manual_seed(3)
    _, codes, *_, first = module(z)
    assert (codes[:, 1:] < 0).any()
    torch.testing.assert_close(first, module.from_codes(codes[:, :1])[0])


def test_averages_move_once_a_step() -> None:
    """The value of the first stage is that of the same forward."""
    module, z = plug_in(original(), "ema_vq").train(), vectors()
    other = copy.deepcopy(module.quantizer)
    module(z)
    other(z)
    assert torch.equal(module.quantizer.codebook, other.codebook)


# What does not fit


def test_it_is_told_apart_from_dac() -> None:
    dac = stand_in_dac.ResidualVectorQuantize(WIDTH, **SIZES)
    found = [contract_of(module) for module in (original(), dac, original().quantizers[0])]
    assert [contract.contract for contract in found if contract] == ["dualcodec", "dac", "dac_stage"]
    assert len(plug_in(dac, "vq")(vectors())) == 5
    with pytest.raises(ValueError, match="is not called as the quantizer of dac"):
        plug_in(original(), "vq", contract="dac")


def test_both_places_are_asked_for_by_name() -> None:
    model = build()
    with pytest.raises(ValueError, match=r"quantizers at 'dac.quantizer' .* pass one path as at="):
        plug_in(model, "vq")
    own = [model.get_submodule(path) for path in PLACES]
    unplug(plug_in(model, "fsq", at=PLACES))
    assert [model.get_submodule(path) for path in PLACES] == own


def test_dropout_of_all_stages_is_not_supported() -> None:
    module, z = plug_in(original(quantizer_dropout=0.5), "vq"), vectors()
    with pytest.raises(ValueError, match=r"quantizer_dropout=0.5, which would leave out all stages"):
        module.train()(z, possibly_no_quantizer=True)
    module.eval()(z, possibly_no_quantizer=True)
    module.quantizer_dropout = 0.0
    module.train()(z, possibly_no_quantizer=True)


def test_a_quantizer_without_stages_is_not_supported() -> None:
    own = nn.Sequential(original())
    for options in ({}, {"keep_codebook": True}):
        with pytest.raises(ValueError, match=r"QINCo (has 3 codebooks that are not stages|cannot keep)"):
            plug_in(own, "qinco", hidden_dim=8, blocks=1, **options)
    assert isinstance(own[0], ResidualVectorQuantize)
    built = quantizers.create("residual", dim=WIDTH, codebook_size=8, num_quantizers=2, channel_dim=1)
    assert plug_in(own, built)[0](vectors())[1].shape == (2, 2, FRAMES)
