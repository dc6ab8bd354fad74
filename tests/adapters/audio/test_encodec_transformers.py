"""EncodecModel of transformers, X-Codec's quantizer, and a stand-in for Higgs Audio's, which needs torchaudio."""

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from quantizers import plug_in, take_codebook, unplug
from tests.adapters import common
from tests.adapters.audio.stand_in_higgs_audio import HiggsAudioV2TokenizerResidualVectorQuantization
from tests.adapters.common import METHODS, RATES, loss_falls, stages_agree, tones

pytest.importorskip("transformers", reason="the extra `models` has it")
from transformers.models.encodec.configuration_encodec import EncodecConfig
from transformers.models.encodec.modeling_encodec import EncodecModel, EncodecResidualVectorQuantizer
from transformers.models.xcodec.modeling_xcodec import XcodecResidualVectorQuantization

WIDTH, CODES, STAGES, FRAMES = 8, 32, 4, 20
BANDWIDTHS = {0.5: 1, 1.0: 2, 2.0: 4}  # kbit/s, and codebooks of 5 bits at 100 vectors a second


def randomise(stages: Any) -> None:
    """Codes of ever smaller scale; the models' own are zero."""
    for place, stage in enumerate(stages):
        book = stage.codebook
        book.embed.normal_().mul_(0.5**place)
        book.cluster_size.uniform_(1, 9)
        book.embed_avg.copy_(book.embed * book.cluster_size[:, None])


def build() -> Any:
    torch.manual_seed(0)
    model = EncodecModel(
        EncodecConfig(
            sampling_rate=800,
            upsampling_ratios=[8],
            target_bandwidths=list(BANDWIDTHS),
            codebook_size=CODES,
            hidden_size=WIDTH,
            num_filters=4,
            num_lstm_layers=1,
        )
    )
    randomise(model.quantizer.layers)
    # Its latents would begin at a sixth of the codes' scale, and few steps would go by before they move.
    model.encoder.layers[-1].conv.parametrizations.weight.original0.data.mul_(8)
    return model


def vectors(n: int = 40) -> Tensor:
    return torch.randn(2, WIDTH, n, generator=torch.Generator().manual_seed(1))


def rows(x: Tensor) -> Tensor:
    return x.movedim(1, -1).reshape(-1, x.shape[1])


@pytest.mark.parametrize("name", METHODS)
def test_trains_encodes_and_decodes(name: str) -> None:
    model, audio = plug_in(build(), name), tones()

    def losses() -> tuple[Tensor, Tensor]:
        quantized, _, loss = model.quantizer(model.encoder(audio))
        return F.mse_loss(model.decoder(quantized), audio), loss

    loss_falls(model, losses)
    model.eval()
    z = model.encoder(audio)
    for bandwidth, count in BANDWIDTHS.items():
        quantized, indices, loss = model.quantizer(z, bandwidth=bandwidth)
        assert loss.shape == ()
        encoded = model.encode(audio, bandwidth=bandwidth)
        assert encoded.audio_codes.shape == (1, 2, count, FRAMES)
        assert torch.equal(encoded.audio_codes[0].movedim(1, -1), indices)
        decoded = model.decode(encoded.audio_codes, encoded.audio_scales).audio_values
        assert torch.equal(decoded, model(audio, bandwidth=bandwidth).audio_values)
        torch.testing.assert_close(decoded, model.decoder(quantized))


@pytest.mark.parametrize("name", METHODS)
def test_kept_codebooks_give_what_the_model_gave(name: str) -> None:
    model, audio = build().eval(), tones()
    original, codebook = model.quantizer, take_codebook(model)
    assert codebook.shape == (STAGES, CODES, WIDTH)
    if name == "fsq":
        with pytest.raises(ValueError, match="scales or bounds the input of its stages"):
            plug_in(model, name, keep_codebook=True)
        assert model.quantizer is original
        return
    before = [model(audio, bandwidth=bandwidth) for bandwidth in BANDWIDTHS]
    plug_in(model, name, keep_codebook=True)
    assert torch.equal(take_codebook(model), codebook)
    z = model.encoder(audio)
    for bandwidth, earlier in zip(BANDWIDTHS, before, strict=True):
        reference, found = earlier.audio_codes[0].transpose(0, 1), model(audio, bandwidth=bandwidth)
        codes = found.audio_codes[0].transpose(0, 1)
        same = stages_agree(codes.flatten(1), reference.flatten(1), rows(z), codebook)
        assert torch.equal(model.quantizer.decode(reference), original.decode(reference))
        if same.all():
            assert torch.equal(found.audio_values, earlier.audio_values)


def test_averages_are_kept_where_there_are_some() -> None:
    model = build()
    reference = [layer.codebook for layer in model.quantizer.layers]
    reference[1].cluster_size.zero_()
    parts = plug_in(model, "ema_vq", keep_codebook=True).quantizer.quantizer.components
    assert torch.equal(parts[0].cluster_size, reference[0].cluster_size)
    assert torch.equal(parts[0].embedding_sum, reference[0].embed_avg)
    assert torch.equal(parts[1].cluster_size, torch.ones(CODES))
    assert torch.equal(parts[1].embedding_sum, reference[1].embed)


def test_unplug_puts_back_what_stood_there() -> None:
    model, audio = build().eval(), tones()
    original, before = model.quantizer, model(audio).audio_values
    keys = set(model.state_dict())
    plug_in(model, "simvq")
    assert not keys & {key for key in model.state_dict() if "quantizer" in key}
    plug_in(model, "fsq")
    assert unplug(model).quantizer is original
    assert set(model.state_dict()) == keys
    assert torch.equal(model(audio).audio_values, before)


@pytest.mark.parametrize(("levels", "counts"), [((4, 4), (1, 2, 4)), ((8, 8, 8), (1, 1, 2))])
def test_a_bandwidth_counts_the_bits_of_our_codebooks(levels: tuple[int, ...], counts: tuple[int, ...]) -> None:
    """Of 16 codes five would fit into 2 kbit/s, and there are four; of 512 codes 9 bits each, two."""
    model = plug_in(build(), "fsq", levels=levels).eval()
    assert model.quantizer.codebook_size == torch.tensor(levels).prod()
    for bandwidth, count in zip(BANDWIDTHS, counts, strict=True):
        codes = model.encode(tones(), bandwidth=bandwidth).audio_codes
        assert codes.shape == (1, 2, count, FRAMES)


def test_encode_moves_no_state_and_a_mask_is_ours() -> None:
    model = plug_in(build(), "ema_vq").train()
    before = take_codebook(model)
    model(tones(), bandwidth=2.0)
    assert torch.equal(take_codebook(model), before)
    mask = torch.ones(2, FRAMES, dtype=torch.bool)
    mask[:, 15:] = False
    indices = model.quantizer(model.encoder(tones()), mask, bandwidth=1.0).indices
    assert (indices[:, 15:] == -1).all()
    assert (indices[:, :15] >= 0).all()
    after = take_codebook(model)
    assert not torch.equal(after[:2], before[:2])
    assert torch.equal(after[2:], before[2:])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_model_that_is_cast_gets_its_dtype(dtype: torch.dtype) -> None:
    for model in (plug_in(build(), "vq").to(dtype), plug_in(build().to(dtype), "vq")):
        assert model.eval()(tones().to(dtype)).audio_values.dtype == dtype
        assert model.quantizer(model.encoder(tones().to(dtype))).quantized.dtype == dtype


# Those made after it

COPIES = (XcodecResidualVectorQuantization, HiggsAudioV2TokenizerResidualVectorQuantization)


def copy_of(kind: type, **options: Any) -> Any:
    sizes = {"codebook_size": CODES, "num_quantizers": STAGES, "frame_rate": 100}
    sizes |= {"hidden_size": WIDTH, "codebook_dim": WIDTH if kind is COPIES[0] else 3}
    torch.manual_seed(0)
    built = kind(SimpleNamespace(**(sizes | options)))
    randomise(built.quantizers)
    return built.eval()


@pytest.mark.parametrize("kind", [EncodecResidualVectorQuantizer, *COPIES])
def test_as_many_codebooks_as_theirs_for_a_bandwidth(kind: type) -> None:
    """The two ways to divide round differently, as for 1.2 kbit/s in codebooks of 0.4."""
    sizes = {"codebook_size": 256, "num_quantizers": 8, "frame_rate": 50, "hidden_size": 2, "codebook_dim": 2}
    reference = kind(SimpleNamespace(**sizes))
    new = plug_in(reference, "vq")
    assert (new.num_quantizers, new.codebook_size, new.frame_rate) == (8, 256, 50)
    seen = set()
    for reference.frame_rate, bandwidth in itertools.product(RATES, common.BANDWIDTHS):
        asked = reference.get_num_quantizers_for_bandwidth(bandwidth)
        assert new.get_num_quantizers_for_bandwidth(bandwidth) == min(asked, 8)
        seen.add(asked)
    assert seen >= {*range(1, 11)}


@pytest.mark.parametrize("kind", COPIES)
@pytest.mark.parametrize("width", [3, WIDTH])
def test_copies_keep_codebooks_and_projections(kind: type, width: int) -> None:
    if kind is COPIES[0]:
        width = WIDTH  # it has no projections
    reference, z = copy_of(kind, codebook_dim=width), vectors()
    new = plug_in(reference, "vq", keep_codebook=True).eval()
    assert new.get_bandwidth_per_quantizer() == reference.get_bandwidth_per_quantizer() == 0.5
    for bandwidth in (None, 1.0):
        expected, found = reference.encode(z, bandwidth), new.encode(z, bandwidth)
        assert found.shape == expected.shape
        # Ties are as rare as float32 makes them; a tie in the first stage changes the others.
        assert (found == expected).all(0).float().mean() > 0.9
        torch.testing.assert_close(new.decode(expected), reference.decode(expected))


@pytest.mark.parametrize("kind", COPIES)
@pytest.mark.parametrize("name", METHODS)
def test_copies_are_replaced_by_each_method(kind: type, name: str) -> None:
    new, z = plug_in(copy_of(kind), name).eval(), vectors()
    out = new(z, bandwidth=1.0)
    assert out.indices.shape == (2, 40, 2)
    codes = new.encode(z, 1.0)
    assert torch.equal(codes.movedim(0, -1), out.indices)
    torch.testing.assert_close(new.decode(codes), out.quantized)
