"""WavTokenizer's quantizer, in a stand-in."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quantizers import FSQ, plug_in, take_codebook
from quantizers.adapters.recognition import contract_of
from tests.adapters.audio import stand_in_encodec
from tests.adapters.audio.checks import check_moved, check_saved, drawn, two_methods
from tests.adapters.audio.stand_in_wavtokenizer import ResidualVectorQuantizer, WavTokenizer
from tests.adapters.common import METHODS, agrees, check_unplugs, loss_falls, tones

WIDTH, CODES, RATE, FRAMES = 8, 32, 25, 20


def original(**options: Any) -> Any:
    return drawn(ResidualVectorQuantizer(WIDTH, **{"n_q": 1, "bins": CODES, **options}))


def build() -> Any:
    torch.manual_seed(0)
    return WavTokenizer(original())


ORIGINALS: dict[str, Callable[[], nn.Module]] = {"wavtokenizer": original}


def vectors() -> Tensor:
    return torch.randn(2, WIDTH, 50, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", METHODS)
def test_trains_encodes_and_decodes(name: str) -> None:
    codec, audio = plug_in(build(), name), tones()

    def losses() -> tuple[Tensor, Tensor]:
        heard, penalty = codec(audio)
        return F.mse_loss(heard, audio), penalty

    loss_falls(codec, losses)
    codec.eval()
    features, codes = codec.encode_infer(audio)
    assert codes.shape == (1, 2, FRAMES)
    assert torch.equal(codec.quantizer.encode(codec.encoder(audio), RATE), codes)
    torch.testing.assert_close(codec.codes_to_features(codes), features)
    torch.testing.assert_close(codec.quantizer.decode(codes), features)
    torch.testing.assert_close(codec.head(features), codec(audio)[0])


@two_methods
def test_saved_and_loaded(name: str, tmp_path: Path) -> None:
    check_saved(plug_in(build(), name), "quantizer", build, tmp_path, lambda codec: codec.encode_infer(tones()))


@pytest.mark.parametrize("name", ["vq", "ema_vq", "simvq", "rotation_vq", "gumbel"])
def test_kept_codebook_gives_what_the_model_gave(name: str) -> None:
    codec, z = build().eval(), vectors()
    own, codebook = codec.quantizer, take_codebook(codec)
    assert codebook.shape == (CODES, WIDTH)
    plug_in(codec, name, keep_codebook=True)
    new = codec.quantizer
    assert torch.equal(take_codebook(codec), codebook)
    for method in ("forward", "infer"):
        found, expected = (getattr(module, method)(z, RATE, 0.1) for module in (new, own))
        assert [part.name for part in dataclasses.fields(found)] == [
            part.name for part in dataclasses.fields(expected)
        ]
        assert agrees(found.codes.flatten(), expected.codes.flatten(), z.mT.flatten(0, 1), codebook)
        same = (found.codes[0] == expected.codes[0])[:, None]
        torch.testing.assert_close(found.quantized.where(same, 0.0), expected.quantized.where(same, 0.0))
        assert found.bandwidth == expected.bandwidth == 125  # five bits, 25 times a second
    assert torch.equal(new.decode(expected.codes), own.decode(expected.codes))
    assert torch.equal(new.vq.layers[0].codebook, own.vq.layers[0].codebook)
    assert (new.n_q, new.bins, new.dimension) == (own.n_q, own.bins, own.dimension)
    assert new.get_num_quantizers_for_bandwidth(RATE, 6.6) == 1
    assert new.get_bandwidth_per_quantizer(RATE) == own.get_bandwidth_per_quantizer(RATE)


def test_ema_goes_on_as_theirs_would_have() -> None:
    expected, new = original(decay=0.7).train(), plug_in(original(decay=0.7).train(), "ema_vq", keep_codebook=True)
    torch.testing.assert_close(new(vectors(), RATE).penalty, expected(vectors(), RATE).penalty)
    moved = expected.vq.layers[0]._codebook.embed
    check_moved(take_codebook(new), moved, take_codebook(original()), vectors())


def test_unplug_puts_back_what_stood_there() -> None:
    codec = build().eval()
    check_unplugs(codec, "quantizer", lambda: codec(tones())[0])


@pytest.mark.parametrize("options", [{}, {"code_dim": 3}])
def test_several_codebooks_are_read_stage_by_stage(options: dict[str, Any]) -> None:
    codec = plug_in(build(), "residual", num_quantizers=2, codebook_size=16, **options).eval()
    features, codes = codec.encode_infer(tones())
    assert codes.shape == (2, 2, FRAMES)
    torch.testing.assert_close(codec.codes_to_features(codes), features)
    torch.testing.assert_close(codec.quantizer.decode(codes), features)
    assert codec.quantizer.infer(vectors(), RATE).bandwidth == 2 * 4 * RATE
    with pytest.raises(ValueError, match="cannot keep a codebook, because its codes cannot be set"):
        plug_in(build(), "residual", num_quantizers=2, keep_codebook=True)


def test_one_that_is_built_is_taken() -> None:
    codec = plug_in(build(), FSQ(WIDTH, [4, 4], channel_dim=1)).eval()
    features, codes = codec.encode_infer(tones())
    assert codec.quantizer.bins == 16
    torch.testing.assert_close(codec.codes_to_features(codes), features)


# What does not fit


def test_it_is_told_apart_from_encodec() -> None:
    found = [contract_of(module) for module in (original(), stand_in_encodec.ResidualVectorQuantizer(WIDTH, 1, 8))]
    assert [of.contract for of in found if of] == ["wavtokenizer", "encodec"]
    with pytest.raises(ValueError, match="is called as WavTokenizer's or AcademiCodec's"):
        plug_in(original(), "vq", contract="encodec")


def test_several_codebooks_of_the_original_are_named() -> None:
    with pytest.raises(ValueError, match="has 3 codebooks, which its forward does not add up; expected one"):
        plug_in(original(n_q=3), "vq")
