"""DAC: Descript's codec as a stand-in, and transformers' DacModel."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import weight_norm

from quantizers import DeadCodeReplacement, ResidualQuantizer, create, plug_in, take_codebook, unplug, warm_start
from tests.adapters.audio.dac_bounds import EPS, assert_agrees
from tests.adapters.audio.stand_in_dac import DAC, VectorQuantize
from tests.adapters.common import METHODS, loss_falls

WIDTH, STAGES, CODES, CODE_DIM, FRAMES = 16, 3, 16, 4, 16
SIZES = {"n_codebooks": STAGES, "codebook_size": CODES, "codebook_dim": CODE_DIM}
KEEPING = ("vq", "ema_vq", "simvq", "rotation_vq")
every_method = pytest.mark.parametrize("name", METHODS)
kinds = pytest.mark.parametrize("kind", ["descript", "transformers"])


def audio(samples: int) -> Tensor:
    """[4, 1, samples]: a tone for each sample, with little noise."""
    time = torch.arange(samples) / 4
    tones = torch.sin(time * torch.tensor([1.0, 1.5, 2.3, 3.1])[:, None])
    return 0.5 * tones[:, None] + 0.01 * torch.randn(4, 1, len(time), generator=torch.Generator().manual_seed(1))


def build(kind: str, **options: Any) -> tuple[Any, Tensor]:
    """A model and what it takes, in FRAMES frames."""
    torch.manual_seed(0)
    if kind == "descript":
        model, x = DAC(WIDTH, **SIZES, **options), audio(4 * FRAMES)
    else:
        modeling = pytest.importorskip("transformers.models.dac.modeling_dac", reason="the extra `models` has it")
        configuration = pytest.importorskip("transformers.models.dac.configuration_dac")
        config = configuration.DacConfig(
            encoder_hidden_size=8, downsampling_ratios=(2,), decoder_hidden_size=8, **SIZES, **options
        )
        model, x = modeling.DacModel(config), audio(2 * FRAMES)
        # Its own first weights, of 0.02, make all latents and codes a speck in which nothing is far from anything.
        for parameter in model.parameters():
            if parameter.dim() == 3:
                nn.init.xavier_normal_(parameter)
        model.decoder.conv2.weight.data.mul_(0.1)  # so that tanh passes a gradient
    for stage in model.quantizer.quantizers:
        nn.init.normal_(stage.codebook.weight)
    return model, x


def sound(kind: str, out: Any) -> Tensor:
    return out["audio"] if kind == "descript" else out.audio_values[:, None]


def step(kind: str, model: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    out = model(x)
    extra = 0.25 * out["vq/commitment_loss"] + out["vq/codebook_loss"] if kind == "descript" else out.loss.mean()
    return nn.functional.mse_loss(sound(kind, out), x), extra


@kinds
@every_method
def test_trains_encodes_and_decodes(kind: str, name: str) -> None:
    model, x = build(kind, quantizer_dropout=0.5)
    assert plug_in(model, name) is model
    assert model.quantizer.quantizer.dropout == 0.5
    loss_falls(model, lambda: step(kind, model, x))
    model.eval()
    z = model.encoder(x)
    for count in (None, 1, 2, STAGES):
        quantized, codes, latents, commitment, loss = model.quantizer(z, count)
        used = count or STAGES
        assert codes.shape == (4, used, FRAMES)
        assert latents.shape == (4, used * model.quantizer.codebook_dim[0], FRAMES)
        assert commitment.shape == loss.shape == (() if kind == "descript" else (4,))
        assert (commitment == 0).all()
        value, own, same = model.quantizer.from_codes(codes)
        torch.testing.assert_close(value, quantized)
        assert same is codes
        assert own.shape == latents.shape
        if kind == "transformers":
            encoded = model.encode(x, n_quantizers=count)
            assert torch.equal(encoded.audio_codes, codes)
            decoded = model.decode(audio_codes=codes).audio_values
            torch.testing.assert_close(decoded, model(x, n_quantizers=count).audio_values)


@kinds
@every_method
def test_latents_are_what_stages_look_codes_up_for(kind: str, name: str) -> None:
    model, x = build(kind)
    plug_in(model, name).eval()
    quantized, codes, latents, *_ = model.quantizer(model.encoder(x))
    for count in (1, STAGES):
        first = latents[:, : sum(model.quantizer.codebook_dim[:count])]
        value, own, *indices = model.quantizer.from_latents(first)
        assert len(indices) == (kind == "descript")
        assert all(torch.equal(found, codes[:, :count]) for found in indices)
        expected = model.quantizer.from_codes(codes[:, :count])
        assert torch.equal(value, expected[0])
        assert torch.equal(own, expected[1])
    torch.testing.assert_close(value, quantized)
    with pytest.raises(ValueError, match="latents have 5 channels, expected one of"):
        model.quantizer.from_latents(latents[:, :5])
    for stage, own, chosen in zip(
        model.quantizer.quantizers, latents.chunk(STAGES, 1), codes.unbind(1), strict=True
    ):
        found, indices = stage.decode_latents(own)
        assert torch.equal(indices, chosen)
        assert torch.equal(found, stage.decode_code(chosen))
        assert torch.equal(stage.embed_code(chosen), stage.codebook.weight[chosen])
        assert (stage.codebook_size, stage.codebook_dim) == tuple(stage.codebook.weight.shape)


@torch.no_grad()
@kinds
@pytest.mark.parametrize("name", KEEPING)
def test_kept_codebook_gives_what_the_model_gave(kind: str, name: str) -> None:
    """Except where float32 cannot distinguish the distances of two codes."""
    model, x = build(kind)
    z, codebook, original = model.eval().encoder(x), take_codebook(model), model.quantizer
    before = {count: original(z, count) for count in (None, 2)}
    plug_in(model, name, keep_codebook=True)
    assert torch.equal(take_codebook(model), codebook)
    assert codebook.shape == (STAGES, CODES, CODE_DIM)
    for count, reference in before.items():
        new = model.quantizer(z, count)
        assert_agrees(new[:3], reference[:3], z, original)
        codes, latents = reference[1:3]
        for found, expected in (
            (model.quantizer.from_codes(codes), original.from_codes(codes)),
            (model.quantizer.from_latents(latents), original.from_latents(latents)),
        ):
            assert_agrees((found[0], codes, latents), (expected[0], codes, latents), z, original)
            assert torch.equal(found[1], expected[1])
            assert len(found) == len(expected)


@torch.no_grad()
@kinds
@pytest.mark.parametrize("name", ["vq", "simvq", "rotation_vq"])
def test_kept_codebook_keeps_the_loss(kind: str, name: str) -> None:
    """0.25 · commitment + codebook loss, the weights that both train with."""
    model, x = build(kind)
    z = model.eval().encoder(x)
    _, codes, latents, *reference = model.quantizer(z)
    plug_in(model, name, keep_codebook=True)
    _, found, own, commitment, loss = model.quantizer(z)
    assert torch.equal(found, codes), "no vector here is between two codes"
    assert (commitment == 0).all()
    expected = 0.25 * reference[0] + reference[1]
    # A mean of squares of z − e: z is off by as much as was seen, and as many sums of terms of one sign round.
    errors = (latents - model.quantizer.from_codes(codes)[1]).abs().mean()
    moved = 1.25 * 2 * STAGES * errors * (own - latents).abs().max()
    assert ((loss - expected).abs() <= moved + (4 * FRAMES * CODE_DIM + 8) * EPS * expected).all()


@pytest.mark.parametrize("name", ["fsq", "gumbel", "qinco", "lfq"])
def test_what_does_not_search_as_dac_keeps_no_codebook(name: str) -> None:
    model, x = build("descript")
    before = model.eval()(x)["z"]
    with pytest.raises(ValueError, match="cannot keep a codebook of DAC"):
        plug_in(model, name, keep_codebook=True)
    for options in ({"shared": True}, {"learn_scales": True}, {"code_dim": WIDTH}, {"distance": "euclidean"}):
        with pytest.raises(ValueError, match="cannot keep a codebook of DAC"):
            plug_in(model, "vq", keep_codebook=True, **options)
    assert torch.equal(model(x)["z"], before)


def test_weight_norm_of_either_kind_is_folded() -> None:
    """The older one has its weight written by the forward only: here it is stale."""
    with pytest.warns(FutureWarning, match="weight_norm"):
        model, x = build("descript", norm=weight_norm)
    for stage in model.quantizer.quantizers:
        stage.in_proj.weight_g.data.mul_(2)
    z = model.eval().encoder(x).detach()
    original = copy.copy(model.quantizer)
    plug_in(model, "vq", keep_codebook=True)
    new = model.quantizer(z)
    assert_agrees(new[:3], original(z)[:3], z, original)


@kinds
def test_dropped_stages_have_no_code_in_training(kind: str) -> None:
    model, x = build(kind, quantizer_dropout=1.0)
    plug_in(model, "vq").train()
    torch.manual_seed(3)
    quantized, codes, *_ = model.quantizer(model.encoder(x), 1)  # how many is not asked for in training
    assert codes.shape == (4, STAGES, FRAMES)
    kept = (codes >= 0).sum(1)
    assert (kept == kept[:, :1]).all()
    assert len(kept.unique()) > 1
    torch.testing.assert_close(model.quantizer.from_codes(codes)[0], quantized)
    model.quantizer.quantizer_dropout = 0.0
    assert (model.quantizer(model.encoder(x))[1] >= 0).all()


@kinds
def test_a_model_in_half_precision_decodes_its_codes(kind: str) -> None:
    model, x = build(kind)
    plug_in(model.eval(), "vq").bfloat16()
    quantized, codes, latents, *_ = model.quantizer(model.encoder(x.bfloat16()))
    decoded = model.quantizer.from_codes(codes)
    assert {of.dtype for of in (*decoded[:2], *model.quantizer.from_latents(latents)[:2])} == {torch.bfloat16}
    assert torch.equal(decoded[0], quantized)
    assert model.decoder(decoded[0]).dtype == torch.bfloat16


@kinds
def test_single_stages_of_a_model_in_half_precision(kind: str) -> None:
    model, x = build(kind)
    plug_in(model.eval(), "vq", at=[f"quantizer.quantizers.{stage}" for stage in range(STAGES)]).bfloat16()
    _, codes, *_ = model.quantizer(model.encoder(x.bfloat16()))
    assert model.decoder(model.quantizer.from_codes(codes)[0]).dtype == torch.bfloat16
    assert model.quantizer.quantizers[0].codebook.weight.dtype == torch.bfloat16


@kinds
def test_another_number_of_stages_is_not_kept(kind: str) -> None:
    with pytest.raises(ValueError, match="quantizer has 2 stages; expected 3, one for each"):
        plug_in(build(kind)[0], "vq", num_quantizers=2, keep_codebook=True)


def test_replacement_sees_what_the_adapter_quantizes() -> None:
    model, x = build("descript")
    plug_in(model, "vq").train()
    replacement = DeadCodeReplacement(model, torch.optim.Adam(model.parameters()), threshold=0.9, decay=0.0)
    model(x)
    assert replacement.step() > 0


def test_warm_start_sees_what_the_adapter_quantizes() -> None:
    """Also where the model asks for fewer codebooks."""
    model, x = build("descript")
    plug_in(model, "vq")
    before = take_codebook(model)
    warm_start(model, [{"audio": x, "n_quantizers": 2}])
    assert (take_codebook(model) != before).any(-1).all()


# What models read and set


def test_weight_norm_is_applied_to_the_projections() -> None:
    """It is g · v/‖v‖ with what each weight was: n squares, a root, a quotient and a product round."""
    model, x = build("transformers")
    plug_in(model, "vq")
    before = [stage.in_proj.weight.detach().clone() for stage in model.quantizer.quantizers]
    model.apply_weight_norm()
    for stage, weight in zip(model.quantizer.quantizers, before, strict=True):
        torch.testing.assert_close(stage.in_proj.weight, weight, rtol=(WIDTH + 4) * EPS, atol=0)
        assert stage.in_proj.parametrizations.weight.original0.shape == (CODE_DIM, 1)
    loss_falls(model, lambda: step("transformers", model, x))
    with pytest.raises(ValueError, match=r"a stage is FSQ of 2 channels, which has no projection of its own"):
        plug_in(build("transformers")[0], "fsq").apply_weight_norm()


def test_saved_and_loaded(tmp_path: Path) -> None:
    model, x = build("transformers")
    plug_in(model, "simvq").eval()
    model.save_pretrained(tmp_path)
    other = plug_in(build("transformers")[0], "simvq").eval()
    safetensors = pytest.importorskip("safetensors.torch")
    other.load_state_dict(safetensors.load_file(tmp_path / "model.safetensors"))
    assert torch.equal(other(x).audio_values, model(x).audio_values)
    assert torch.equal(copy.deepcopy(model)(x).audio_values, model(x).audio_values)


@kinds
def test_unplug_puts_back_what_stood_there(kind: str) -> None:
    model, x = build(kind)
    original, before, keys = model.quantizer, sound(kind, model.eval()(x)), set(model.state_dict())
    plug_in(model, "fsq")
    assert not any("original" in key and "quantizer" in key for key in model.state_dict())
    unplug(model)
    assert model.quantizer is original
    assert set(model.state_dict()) == keys
    assert torch.equal(sound(kind, model(x)), before)


def test_what_is_not_in_stages_is_named() -> None:
    model, x = build("descript")
    plug_in(model, "qinco", hidden_dim=8, blocks=1).eval()
    quantized, codes, latents, *_ = model.quantizer(model.encoder(x))
    assert codes.shape == (4, STAGES, FRAMES)
    assert latents.shape == (4, CODE_DIM, FRAMES)  # the one vector that all codes come from
    value, _, indices = model.quantizer.from_latents(latents)
    assert torch.equal(indices, codes)
    torch.testing.assert_close(value, quantized)
    for ask in (lambda: model(x, n_quantizers=2), lambda: model.quantizer.quantizers):
        with pytest.raises(ValueError, match="QINCo has 3 codebooks that are not stages"):
            ask()
    plug_in(model, "vq")
    with pytest.raises(ValueError, match=r"num_codebooks is 4, expected one of \[1, 2, 3\]"):
        model(x, n_quantizers=4)


def test_stages_of_different_width_are_named() -> None:
    model = DAC(WIDTH, n_codebooks=2, codebook_size=CODES, codebook_dim=[4, 8])
    with pytest.raises(
        ValueError, match=r"has stages of .* \[\(16, 16, 4\), \(16, 16, 8\)\]; expected at least one"
    ):
        plug_in(model, "vq")
    quantizer = create("residual", dim=WIDTH, codebook_size=CODES, num_quantizers=2, channel_dim=1)
    with pytest.raises(ValueError, match="has stages of"):
        plug_in(model, quantizer)


# A single quantizer


@kinds
@every_method
def test_a_single_stage(kind: str, name: str) -> None:
    """By itself, and inside the original's residual quantizer, which calls and reads it as its own."""
    model, x = build(kind)
    model.eval()
    z, original = model.encoder(x).detach(), model.quantizer.quantizers[0]
    reference = original(z)
    plug_in(model, name, at="quantizer.quantizers.0")
    stage = model.quantizer.quantizers[0]
    quantized, commitment, loss, indices, latents = new = stage(z)
    assert commitment.shape == loss.shape == reference[1].shape
    assert (commitment == 0).all()
    assert indices.shape == reference[3].shape
    assert latents.shape == (4, stage.codebook_dim, FRAMES)
    assert [tensor.dtype for tensor in new] == [tensor.dtype for tensor in reference]
    codes, found = stage.decode_latents(latents)
    assert torch.equal(found, indices)
    torch.testing.assert_close(stage.out_proj(codes), quantized)
    assert torch.equal(stage.in_proj(z), latents)
    value, all_codes, all_latents, *_ = model.quantizer(z)
    torch.testing.assert_close(model.quantizer.from_codes(all_codes)[0], value)
    torch.testing.assert_close(model.quantizer.from_latents(all_latents)[0], value)
    loss_falls(model, lambda: step(kind, model, x))


@kinds
def test_a_kept_single_stage(kind: str) -> None:
    model, x = build(kind)
    z, original = model.eval().encoder(x).detach(), model.quantizer
    before, at = original(z), "quantizer.quantizers.1"
    codebook = take_codebook(model, at=at)
    untouched = copy.deepcopy(original)
    plug_in(model, "vq", at=at, keep_codebook=True)
    assert torch.equal(take_codebook(model, at=at), codebook)
    assert_agrees(model.quantizer(z)[:3], before[:3], z, untouched)


def test_modules_of_the_name_alone_are_not_known() -> None:
    class Other(VectorQuantize):
        """Another library's class of that name."""

        def __init__(self) -> None:
            nn.Module.__init__(self)

    Other.__name__ = "VectorQuantize"
    with pytest.raises(ValueError, match="no quantizer of a known contract"):
        plug_in(nn.Sequential(Other()), "vq")


def test_one_that_is_built_is_taken() -> None:
    model, x = build("descript")
    quantizer = create("residual", dim=WIDTH, codebook_size=8, num_quantizers=2, code_dim=3, channel_dim=1)
    assert isinstance(quantizer, ResidualQuantizer)
    plug_in(model, quantizer).eval()
    assert model(x)["codes"].shape == (4, 2, FRAMES)
    assert (model.quantizer.n_codebooks, model.quantizer.codebook_size) == (2, 8)
    assert model.quantizer.codebook_dim == [3, 3]
