"""MimiModel of transformers, whose quantizer has two halves."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import quantizers
from quantizers import plug_in, take_codebook, unplug, warm_start
from quantizers.adapters import plugged
from tests.adapters.common import METHODS, loss_falls, stages_agree, tones

pytest.importorskip("transformers", reason="the extra `models` has it")
from transformers.models.mimi.configuration_mimi import MimiConfig
from transformers.models.mimi.modeling_mimi import MimiModel

HIDDEN, WIDTH, CODES, STAGES, SEMANTIC, FRAMES = 16, 8, 32, 4, 2, 10
PATHS = ["quantizer.semantic_residual_vector_quantizer", "quantizer.acoustic_residual_vector_quantizer"]


def build(width: int = WIDTH) -> Any:
    torch.manual_seed(0)
    model = MimiModel(
        MimiConfig(
            sampling_rate=800,
            frame_rate=50,
            upsampling_ratios=[8],
            codebook_size=CODES,
            codebook_dim=width,
            vector_quantization_hidden_dimension=width,
            hidden_size=HIDDEN,
            num_filters=4,
            num_quantizers=STAGES,
            num_semantic_quantizers=SEMANTIC,
            num_hidden_layers=1,
            intermediate_size=HIDDEN,
            num_attention_heads=2,
            num_key_value_heads=2,
            upsample_groups=HIDDEN,
        )
    )
    for half in halves(model):
        for place, layer in enumerate(half.layers):
            layer.codebook.cluster_usage.uniform_(0, 9)
            layer.codebook.cluster_usage[0] = 0  # below its bound
            layer.codebook.embed_sum.normal_().mul_(0.5**place * layer.codebook.cluster_usage[:, None])
    return model


def halves(model: Any) -> list[Any]:
    return [model.get_submodule(path) for path in PATHS]


@pytest.mark.parametrize("name", METHODS)
def test_trains_encodes_and_decodes(name: str) -> None:
    model, audio = build(), tones()
    assert plug_in(model, name) is model
    assert list(plugged(model)) == PATHS

    def losses() -> tuple[Tensor, Tensor]:
        z = model.encoder(audio).latents
        outputs = [half(z) for half in halves(model)]
        quantized, loss = sum(out.quantized for out in outputs), sum(out.loss for out in outputs)
        return F.mse_loss(model.decoder(quantized).audio_values, audio), loss

    loss_falls(model, losses)
    model.eval()
    z = model.encoder(audio).latents
    for count in (SEMANTIC, 3, STAGES, None):
        codes = model.encode(audio, num_quantizers=count).audio_codes
        assert codes.shape == (2, count or STAGES, FRAMES)
        decoded = model.decode(codes).audio_values
        assert torch.equal(decoded, model(audio, num_quantizers=count).audio_values)
        shares = zip(halves(model), (SEMANTIC, (count or STAGES) - SEMANTIC), strict=True)
        outputs = [half(z, num_quantizers=share) for half, share in shares if share]
        assert torch.equal(torch.cat([out.indices for out in outputs], -1), codes.transpose(1, 2))
        quantized = sum(out.quantized for out in outputs)
        torch.testing.assert_close(model.decoder(quantized).audio_values, decoded)


@pytest.mark.parametrize("name", METHODS)
def test_kept_codebooks_give_what_the_model_gave(name: str) -> None:
    model, audio = build().eval(), tones()
    originals, codebook = halves(model), take_codebook(model)
    assert codebook.shape == (STAGES, CODES, WIDTH)
    assert all(layer.codebook._embed is None for half in originals for layer in half.layers)
    if name == "fsq":
        with pytest.raises(ValueError, match="scales or bounds the input of its stages"):
            plug_in(model, name, keep_codebook=True)
        assert halves(model) == originals
        return
    before = model(audio)
    books = torch.stack([layer.codebook.embed for half in originals for layer in half.layers])
    assert torch.equal(codebook, books)
    plug_in(model, name, keep_codebook=True)
    assert torch.equal(take_codebook(model), codebook)
    found = model(audio)
    z, start = model.encoder(audio).latents, 0
    everywhere = []
    for half, original in zip(halves(model), originals, strict=True):
        own = slice(start, start + original.num_quantizers)
        new, reference = (out.audio_codes[:, own].transpose(0, 1).flatten(1) for out in (found, before))
        rows = original.input_proj(z).movedim(1, -1).reshape(-1, WIDTH)
        # The original's distances are square roots: each rounding is of one of two distances, which are at most
        # twice the scale.
        everywhere.append(stages_agree(new, reference, rows, codebook[own], more=4))
        assert torch.equal(half.decode(before.audio_codes[:, own]), original.decode(before.audio_codes[:, own]))
        start = own.stop
    if torch.stack(everywhere).all():
        assert torch.equal(found.audio_values, before.audio_values)


def test_averages_are_kept() -> None:
    model = build()
    books = [layer.codebook for half in halves(model) for layer in half.layers]
    plug_in(model, "ema_vq", keep_codebook=True)
    parts = [part for half in halves(model) for part in half.quantizer.components]
    for part, book in zip(parts, books, strict=True):
        assert torch.equal(part.cluster_size, book.cluster_usage)
        assert torch.equal(part.embedding_sum, book.embed_sum)
        assert part.epsilon == book.epsilon


def test_the_halves_are_taken_together_or_one_by_one() -> None:
    model = build()
    originals = halves(model)
    plug_in(model, "simvq", at="quantizer")
    assert list(plugged(model)) == PATHS
    plug_in(model, "fsq", at=PATHS[1])  # another for the acoustic half
    assert type(halves(model)[0].quantizer.components[0]).__name__ == "SimVQ"
    assert type(halves(model)[1].quantizer.components[0]).__name__ == "FSQ"
    with pytest.raises(ValueError, match="the codebooks differ in shape"):
        take_codebook(model)
    assert take_codebook(model, at=PATHS[0]).shape == (SEMANTIC, CODES, WIDTH)
    unplug(model, at=PATHS[0])
    assert halves(model)[0] is originals[0]
    plug_in(model, "vq", at=[PATHS[0], "quantizer"])  # each once
    unplug(model, at="quantizer")
    assert halves(model) == originals
    split = plug_in(model.quantizer, "vq")
    assert split is model.quantizer
    assert list(plugged(model)) == PATHS
    acoustic = quantizers.create(
        "residual", dim=WIDTH, codebook_size=CODES, num_quantizers=STAGES - SEMANTIC, channel_dim=1
    )
    plug_in(model, acoustic, at=[PATHS[1], PATHS[1]])
    assert halves(model)[1].quantizer is acoustic
    with pytest.raises(ValueError, match="one quantizer cannot replace 2"):
        plug_in(model, quantizers.create("residual", dim=WIDTH, codebook_size=CODES, channel_dim=1))


def test_two_models_are_told_apart() -> None:
    both = nn.ModuleList([build(), build()])
    with pytest.raises(ValueError, match="which has quantizers at"):
        plug_in(both, "vq")
    plug_in(both, "vq", at=["0.quantizer", "1"])
    assert list(plugged(both)) == [f"{place}.{path}" for place in "01" for path in PATHS]


def test_unplug_puts_back_what_stood_there() -> None:
    model, audio = build().eval(), tones()
    originals, before = halves(model), model(audio).audio_values
    keys = set(model.state_dict())
    plug_in(model, "simvq")
    assert not any("layers" in key or "original" in key for key in model.state_dict() if "quantizer" in key)
    assert halves(unplug(model)) == originals
    assert set(model.state_dict()) == keys
    assert torch.equal(model(audio).audio_values, before)


def test_projections_are_the_models_own_and_are_trained_on() -> None:
    model = plug_in(build(), "vq")
    z = torch.randn(2, HIDDEN, FRAMES)
    entry = halves(model)[0].input_proj.weight
    (halves(model)[0](z).quantized.square().mean()).backward()
    assert entry.grad.abs().max() > 0
    with torch.no_grad():
        entry.zero_()
    plug_in(model, "simvq")
    assert halves(model)[0].input_proj.weight is entry
    copied = unplug(copy.deepcopy(model))
    assert (halves(copied)[0].input_proj.weight == 0).all()
    assert halves(unplug(model))[0].input_proj.weight is entry


def test_a_model_without_projections() -> None:
    model, audio = build(width=HIDDEN).eval(), tones()
    before = model(audio)
    found = plug_in(model, "vq", keep_codebook=True)(audio)
    assert (found.audio_codes == before.audio_codes).float().mean() > 0.9
    assert model(audio, num_quantizers=SEMANTIC).audio_codes.shape == (2, SEMANTIC, FRAMES)


def test_a_model_that_is_cast_gets_its_dtype() -> None:
    model = plug_in(build(), "vq").to(torch.bfloat16).eval()
    assert model(tones().to(torch.bfloat16)).audio_values.dtype == torch.bfloat16


def test_a_half_has_as_many_codebooks_as_before() -> None:
    model = build()
    with pytest.raises(
        ValueError, match="quantizer has 3 codebooks, expected the 2 of MimiResidualVectorQuantizer"
    ):
        plug_in(model, "vq", at=PATHS[0], num_quantizers=3)
    assert not plugged(model)


def test_warm_start_sees_both_halves() -> None:
    """The model calls `encode` alone."""
    model = plug_in(build(), "vq")
    before = take_codebook(model)
    warm_start(model, [tones(), tones().flip(-1)])
    assert (take_codebook(model) != before).any(-1).all()
