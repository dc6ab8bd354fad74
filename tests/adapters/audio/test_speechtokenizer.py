"""SpeechTokenizer's quantizer, in a stand-in."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import quantizers
from quantizers import plug_in, take_codebook
from quantizers.adapters.recognition import contract_of
from tests.adapters.audio.checks import check_moved, check_saved, drawn, two_methods
from tests.adapters.audio.stand_in_speechtokenizer import ResidualVectorQuantizer, SpeechTokenizer
from tests.adapters.common import METHODS, check_unplugs, loss_falls, stages_agree, tones

WIDTH, CODES, STAGES, TEACHER, FRAMES = 8, 32, 4, 5, 20


def original() -> Any:
    return drawn(ResidualVectorQuantizer(WIDTH, STAGES, CODES))


def build() -> Any:
    torch.manual_seed(0)
    return SpeechTokenizer(original(), WIDTH, TEACHER, STAGES)


ORIGINALS: dict[str, Callable[[], nn.Module]] = {"speechtokenizer": original}


def vectors() -> Tensor:
    return torch.randn(2, WIDTH, 50, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", METHODS)
def test_trains_encodes_and_decodes(name: str) -> None:
    codec, audio = plug_in(build(), name), tones()
    teacher = torch.linspace(-1, 1, FRAMES)[:, None].expand(2, FRAMES, TEACHER)

    def losses() -> tuple[Tensor, Tensor]:
        heard, loss, feature = codec(audio)
        return F.mse_loss(heard, audio) + F.mse_loss(feature, teacher), loss

    loss_falls(codec, losses)
    codec.eval()
    codes = codec.encode(audio)
    assert codes.shape == (STAGES, 2, FRAMES)
    assert torch.equal(codec.encode(audio, n_q=2), codes[:2])
    torch.testing.assert_close(codec.decode(codes), codec(audio)[0])
    values = codec.forward_feature(audio)
    for stage, value in enumerate(values):
        torch.testing.assert_close(codec.quantizer.decode(codes[stage : stage + 1], st=stage), value)
    if isinstance(codec.quantizer.quantizer.project_out, nn.Identity):  # whose bias each value has
        torch.testing.assert_close(codec.quantizer.decode(codes[1:], st=1), torch.stack(values[1:]).sum(0))


@two_methods
def test_saved_and_loaded(name: str, tmp_path: Path) -> None:
    model = plug_in(build(), name)
    check_saved(model, "quantizer", build, tmp_path, lambda codec: [codec.encode(tones()), codec(tones())[0]])


@pytest.mark.parametrize("name", ["vq", "ema_vq", "simvq", "rotation_vq", "gumbel"])
def test_kept_codebooks_give_what_the_model_gave(name: str) -> None:
    codec, z = build().eval(), vectors()
    own, codebook = codec.quantizer, take_codebook(codec)
    plug_in(codec, name, keep_codebook=True)
    assert torch.equal(take_codebook(codec), codebook)
    assert (codec.quantizer.n_q, codec.quantizer.bins, codec.quantizer.dimension) == (STAGES, CODES, WIDTH)
    for count, layers in ((None, [2, 0]), (2, None), (3, [0, 1, 2])):
        expected, new = own(z, count, layers), codec.quantizer(z, count, layers)
        same = stages_agree(new[1].flatten(1), expected[1].flatten(1), z.mT.flatten(0, 1), codebook)
        assert len(new[3]) == len(expected[3]) == len(layers or ())
        for found, other in zip((new[0], *new[3]), (expected[0], *expected[3]), strict=True):
            torch.testing.assert_close(found.mT.flatten(0, 1)[same], other.mT.flatten(0, 1)[same])
        assert torch.equal(codec.quantizer.encode(z, count), new[1])
        assert new[2].shape == expected[2].shape
        for st in (0, 1):
            assert torch.equal(codec.quantizer.decode(expected[1][st:], st), own.decode(expected[1][st:], st))


def test_values_have_the_gradients_of_the_original_s() -> None:
    """Straight through the first stage; the residuals of later ones do not move with z."""
    for layer in range(2):
        weights, gradients = torch.linspace(-1, 1, 50), []
        for module in (original().train(), plug_in(original().train(), "ema_vq", keep_codebook=True)):
            z = vectors().requires_grad_()
            *_, (value,) = module(z, layers=[layer])
            gradients += torch.autograd.grad((value * weights).sum(), z)
        # A residual is z − (z + (e − z)): what a stage adds to the gradient it takes away, to a rounding.
        torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-6)
        assert bool(gradients[0].any()) == (layer == 0)


def test_ema_goes_on_as_theirs_would_have() -> None:
    expected, new = original().train(), plug_in(original().train(), "ema_vq", keep_codebook=True)
    torch.testing.assert_close(new(vectors(), layers=[0])[2], expected(vectors(), layers=[0])[2])
    moved = torch.stack([layer._codebook.embed for layer in expected.vq.layers])
    check_moved(take_codebook(new), moved, take_codebook(original()), vectors())


def test_unplug_puts_back_what_stood_there() -> None:
    codec = build().eval()
    check_unplugs(codec, "quantizer", lambda: codec(tones())[0])
    assert torch.equal(copy.deepcopy(plug_in(codec, "vq"))(tones())[0], codec(tones())[0])


# What does not fit


def test_its_stages_are_not_taken_for_encodec_s() -> None:
    """They return a fourth value."""
    found = contract_of(original())
    assert found is not None
    assert found.contract == "speechtokenizer"
    assert contract_of(original().vq) is None
    with pytest.raises(ValueError, match="follows no known contract"):
        plug_in(build(), "vq", at="quantizer.vq")


def test_stages_that_are_not_used_have_no_value() -> None:
    codec, z = plug_in(build(), "vq"), vectors()
    for layers in ([0, 2], [-1]):
        with pytest.raises(ValueError, match=r"expected some of the 2 stages used, from 0"):
            codec.quantizer(z, n_q=2, layers=layers)
    with pytest.raises(ValueError, match="st is 1, but stages quantize what the ones before them leave"):
        codec.encode(tones(), st=1)
    with pytest.raises(ValueError, match="indices have 5 columns"):
        codec.decode(codec.encode(tones()), st=1)


def test_a_quantizer_without_stages_is_not_supported() -> None:
    with pytest.raises(ValueError, match="QINCo has no stages whose values the model could read"):
        plug_in(build(), "qinco", hidden_dim=8, blocks=1)
    pairs = [quantizers.create("grouped", dim=WIDTH, codebook_size=CODES) for _ in range(2)]
    codec = plug_in(build(), quantizers.ResidualQuantizer(WIDTH, pairs, channel_dim=1))
    assert codec.quantizer(vectors(), n_q=3, layers=[0])[1].shape == (2, 2, 50)
