"""AcademiCodec's quantizer, in a stand-in."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quantizers import plug_in, take_codebook
from quantizers.adapters.recognition import contract_of
from tests.adapters.audio import stand_in_encodec
from tests.adapters.audio.checks import check_moved, check_saved, drawn, two_methods
from tests.adapters.audio.stand_in_academicodec import ResidualVectorQuantizer, SoundStream
from tests.adapters.common import METHODS, check_unplugs, loss_falls, stages_agree, tones

WIDTH, CODES, STAGES, RATE, FRAMES = 8, 32, 4, 100, 20


def original() -> Any:
    return drawn(ResidualVectorQuantizer(WIDTH, STAGES, CODES))


def build() -> Any:
    torch.manual_seed(0)
    return SoundStream(original(), WIDTH, RATE)


ORIGINALS: dict[str, Callable[[], nn.Module]] = {"academicodec": original}


def vectors() -> Tensor:
    return torch.randn(2, WIDTH, 50, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", METHODS)
def test_trains_encodes_and_decodes(name: str) -> None:
    codec, audio = plug_in(build(), name), tones()

    def losses() -> tuple[Tensor, Tensor]:
        heard, penalty, _ = codec(audio)
        return F.mse_loss(heard, audio), penalty

    loss_falls(codec, losses)
    codec.eval()
    codes = codec.encode(audio, 2.0)
    assert codes.shape == (STAGES, 2, FRAMES)
    assert torch.equal(codec.encode(audio, 0.5), codes[:1])
    torch.testing.assert_close(codec.decode(codes), codec(audio)[0])


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
    for bandwidth in (1.0, None):
        expected, new = own(z, RATE, bandwidth), codec.quantizer(z, RATE, bandwidth)
        assert isinstance(new, tuple)
        same = stages_agree(new[1].flatten(1), expected[1].flatten(1), z.mT.flatten(0, 1), codebook)
        torch.testing.assert_close(new[0].mT.flatten(0, 1)[same], expected[0].mT.flatten(0, 1)[same])
        assert new[2] == expected[2]
        assert new[3].shape == expected[3].shape
        assert torch.equal(codec.quantizer.encode(z, RATE, bandwidth, 0), new[1])
        assert torch.equal(codec.quantizer.decode(expected[1]), own.decode(expected[1]))


def test_ema_goes_on_as_theirs_would_have() -> None:
    """The penalty of a step in training, and the codes after it."""
    expected, new = original().train(), plug_in(original().train(), "ema_vq", keep_codebook=True)
    torch.testing.assert_close(new(vectors(), RATE)[3], expected(vectors(), RATE)[3])
    moved = torch.stack([layer._codebook.embed for layer in expected.vq.layers])
    check_moved(take_codebook(new), moved, take_codebook(original()), vectors())


def test_unplug_puts_back_what_stood_there() -> None:
    codec = build().eval()
    check_unplugs(codec, "quantizer", lambda: codec(tones())[0])


def test_it_is_told_apart_from_encodec() -> None:
    package = stand_in_encodec.ResidualVectorQuantizer(WIDTH, 2, CODES)
    found = [contract_of(module) for module in (original(), package, original().vq)]
    assert [of.contract for of in found if of] == ["academicodec", "encodec", "encodec_stages"]
    for module, contract in ((original(), "encodec"), (package, "academicodec")):
        with pytest.raises(ValueError, match="whose sizes contract"):
            plug_in(module, "vq", contract=contract)


def test_it_encodes_from_the_first_stage() -> None:
    codec = plug_in(build(), "vq")
    with pytest.raises(ValueError, match=r"st is 2, but stages quantize what .*; expected 0"):
        codec.encode(tones(), st=2)
