"""The quantizer of Qwen3-TTS's tokenizer at 25 Hz, in a stand-in."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quantizers import plug_in, take_codebook
from tests.adapters.audio.checks import check_moved, check_saved, two_methods
from tests.adapters.audio.stand_in_qwen3_tts import DistributedGroupResidualVectorQuantization, WhisperEncoderVQ
from tests.adapters.common import METHODS, check_unplugs, loss_falls, stages_agree

WIDTH, CODES, FEATURES, FRAMES = 8, 32, 6, 20
SIZES = {"num_groups": 1, "num_quantizers": 1, "dim": WIDTH, "codebook_size": CODES}


def original(**options: Any) -> Any:
    torch.manual_seed(0)
    made = DistributedGroupResidualVectorQuantization(**{**SIZES, **options})
    for stages in made.rvqs:
        stages.embed.mul_(0.5 ** torch.arange(len(stages.embed))[:, None, None])
        stages.cluster_size.uniform_(1, 9)
        stages.embed_avg.copy_(stages.embed * stages.cluster_size[..., None])
    return made


def build() -> Any:
    torch.manual_seed(0)
    return WhisperEncoderVQ(FEATURES, original(), WIDTH)


ORIGINALS: dict[str, Callable[[], nn.Module]] = {"qwen3_tts": original}


def speech() -> Tensor:
    """Features [2 · FRAMES, FEATURES]."""
    return torch.stack([(torch.arange(2 * FRAMES) * (place + 1) / 9).sin() for place in range(FEATURES)], 1)


def vectors() -> Tensor:
    return torch.randn(2, 50, WIDTH, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", METHODS)
def test_trains_encodes_and_decodes(name: str) -> None:
    model, x = plug_in(build(), name), speech()

    def losses() -> tuple[Tensor, Tensor]:
        quantized, _, loss = model.audio_quantizer(model.vectors(x))
        return F.mse_loss(model.features(quantized), x), loss.sum()

    loss_falls(model, losses)
    model.eval()
    quantized, indices, loss = model.audio_quantizer(model.vectors(x))
    assert (quantized.shape, indices.shape, loss.shape) == ((1, FRAMES, WIDTH), (1, 1, 1, FRAMES), (1, 1))
    decoded, codes = model(x)
    assert torch.equal(codes, indices[0, 0, 0])
    torch.testing.assert_close(decoded, model.features(quantized))


@two_methods
def test_saved_and_loaded(name: str, tmp_path: Path) -> None:
    check_saved(plug_in(build(), name), "audio_quantizer", build, tmp_path, lambda model: model(speech()))


@torch.no_grad()
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", ["vq", "ema_vq", "simvq", "rotation_vq", "gumbel"])
def test_kept_codebooks_give_what_the_model_gave(name: str, count: int) -> None:
    holder, z = nn.Sequential(original(num_quantizers=count)).eval(), vectors()
    own, codebook = holder[0], take_codebook(holder)
    assert codebook.shape == (count, CODES, WIDTH)
    new = plug_in(holder, name, keep_codebook=True)[0]
    assert torch.equal(take_codebook(holder), codebook)
    for n_q in (None, 1):
        expected, found = own(z, n_q), new(z, n_q)
        assert [part.shape for part in found] == [part.shape for part in expected]
        rows = (part[1].flatten(1) for part in (found, expected))
        same = stages_agree(*rows, z.flatten(0, 1), codebook)
        torch.testing.assert_close(found[0].flatten(0, 1)[same], expected[0].flatten(0, 1)[same])
        assert torch.equal(new.encode(z, n_q), found[1])
        assert torch.equal(new.decode(expected[1]), own.decode(expected[1]))


@torch.no_grad()
def test_projections_are_kept() -> None:
    own, z = original(num_quantizers=2, codebook_dim=3).eval(), vectors()
    new = plug_in(own, "vq", keep_codebook=True)
    expected, found = own(z), new(z)
    same = (found[1] == expected[1]).all(0)[0]
    assert same.float().mean() > 0.9
    torch.testing.assert_close(found[0][same], expected[0][same])
    torch.testing.assert_close(new.decode(expected[1]), own.decode(expected[1]))


def test_ema_goes_on_as_theirs_would_have() -> None:
    options = {"num_quantizers": 2}
    expected, new = original(**options).train(), plug_in(original(**options).train(), "ema_vq", keep_codebook=True)
    torch.testing.assert_close(new(vectors())[2], expected(vectors())[2])
    check_moved(take_codebook(new), expected.rvqs[0].embed, take_codebook(original(**options)), vectors().mT)


def test_unplug_puts_back_what_stood_there() -> None:
    model = build().eval()
    check_unplugs(model, "audio_quantizer", lambda: model(speech())[0])


def test_what_is_not_supported_is_named() -> None:
    for options, name, value in (
        ({"num_groups": 2}, "num_groups", 2),
        ({}, "q0_ds_ratio", 2),
        ({}, "quantize_dropout", True),
    ):
        module = original(**options)
        setattr(module.rvqs[0], name, value)
        with pytest.raises(ValueError, match=f"{name}={value}.*; expected 1, 1 and False"):
            plug_in(module, "vq")
    with pytest.raises(ValueError, match="2 codebooks are requested, but QINCo always uses its 3"):
        plug_in(original(num_quantizers=3), "qinco", hidden_dim=8, blocks=1)(vectors(), 2)
