"""X-Codec 2 and NeuCodec of transformers, whose FSQ gets vectors that were bounded before."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quantizers import FSQ, plug_in, take_codebook
from quantizers.adapters import from_pretrained
from quantizers.adapters.recognition import contract_of
from quantizers.kernels.levels.bound import bound_levels
from tests.adapters.common import METHODS, check_unplugs, loss_falls, tones

transformers = pytest.importorskip("transformers", reason="the extra `models` has it")

LEVELS, WIDTH, HIDDEN, FEATURES, FRAMES = (4, 5, 3), 48, 32, 8, 20
EPS = torch.finfo(torch.float32).eps


def build(name: str = "xcodec2", levels: tuple[int, ...] = LEVELS) -> Any:
    """A small model: "xcodec2", or "neucodec"."""
    torch.manual_seed(0)
    semantic = transformers.Wav2Vec2BertConfig(
        hidden_size=WIDTH - HIDDEN,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        feature_projection_input_dim=FEATURES,
        conv_depthwise_kernel_size=3,
        left_max_position_embeddings=4,
        right_max_position_embeddings=2,
    )
    kind = {
        "xcodec2": (transformers.Xcodec2Config, transformers.Xcodec2Model),
        "neucodec": (transformers.NeuCodecConfig, transformers.NeuCodecModel),
    }
    configuration, model = kind[name]
    return model(
        configuration(
            hidden_size=HIDDEN,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=8,
            encoder_hidden_size=4,
            downsampling_ratios=[2, 4],
            activation_dropout=0.0,
            semantic_model_config=semantic,
            quantization_dim=WIDTH,
            quantization_levels=list(levels),
        )
    )


def quantizer_of(name: str) -> Callable[[], nn.Module]:
    return lambda: build(name).quantizer


ORIGINALS: dict[str, Callable[[], nn.Module]] = {"xcodec2": quantizer_of("xcodec2")}

both = pytest.mark.parametrize("model_name", ["xcodec2", "neucodec"])


def inputs() -> dict[str, Tensor]:
    """Audio [2, 1, 160], and its features [2, 20, 8]."""
    return {
        "input_values": tones(),
        "input_features": torch.randn(2, FRAMES, FEATURES, generator=torch.Generator().manual_seed(1)),
    }


def vectors(scale: float = 2.0) -> Tensor:
    return scale * torch.randn(4, 100, WIDTH, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", METHODS)
def test_trains_encodes_and_decodes(name: str) -> None:
    """By the loop that the adapter's docstring gives."""
    model, given = build(), inputs()
    assert plug_in(model, name) is model
    model.semantic_encoder.eval()

    def losses() -> tuple[Tensor, Tensor]:
        audio = model(**given).audio_values
        return F.mse_loss(audio, given["input_values"]), model.quantizer.loss

    torch.manual_seed(0)  # a relaxed sample draws
    loss_falls(model, losses, rate=1e-2)
    check_answers(model.eval(), given)


def check_answers(model: Any, given: dict[str, Tensor], codebooks: int = 1) -> None:
    encoded = model.encode(**given, output_latents=True)
    assert encoded.audio_codes.shape == (2, codebooks, FRAMES)
    assert encoded.latents.shape == (2, WIDTH, FRAMES)
    decoded = model.decode(encoded.audio_codes).audio_values
    torch.testing.assert_close(decoded, model.decode(latents=encoded.latents).audio_values)
    length = given["input_values"].shape[-1] * (1 if hasattr(model.config, "sampling_rate") else 3 / 2)
    assert model(**given).audio_values.shape == (2, 1, length)


@pytest.mark.parametrize("name", ["fsq", pytest.param("vq", marks=pytest.mark.long)])
def test_neucodec_is_called_alike(name: str) -> None:
    model = plug_in(build("neucodec"), name).eval()
    mask = torch.ones(2, 160, dtype=torch.int64)
    mask[1, 80:] = 0
    check_answers(model, inputs())
    assert model(**inputs(), padding_mask=mask).audio_codes.shape == (2, 1, FRAMES)
    assert model(**inputs()).audio_values.isfinite().all()


def test_several_codebooks_are_decoded_from_as_many_rows() -> None:
    check_answers(plug_in(build(), "residual", num_quantizers=3).eval(), inputs(), codebooks=3)


@both
@pytest.mark.parametrize("levels", [LEVELS, (4,) * 8], ids=str)
def test_kept_codebook_gives_what_the_model_gave(model_name: str, levels: tuple[int, ...]) -> None:
    """Indices are the same where no channel is within rounding of the edge between two levels, and values up to
    the rounding of the projection out."""
    model, given = build(model_name, levels).eval(), inputs()
    original, audio = model.quantizer, model(**given)
    assert contract_of(original).contract == "xcodec2"
    assert torch.equal(take_codebook(model), original.quantizer.codebook)
    plug_in(model, "fsq", keep_codebook=True)
    x = vectors()
    (new, found), (reference, indices) = model.quantizer(x), original(x)
    clear = is_clear(original, x, levels)
    assert clear.float().mean() > 0.9
    assert torch.equal(found[clear], indices[clear].long())
    weight = original.project_out.weight.abs()
    bound = (len(levels) + 2) * EPS * (weight.sum(-1) + original.project_out.bias.abs())  # codes are at most 1
    assert ((new - reference).abs() <= bound)[clear].all()
    assert ((model.quantizer.from_codes(indices) - original.from_codes(indices)).abs() <= bound).all()
    after = model(**given)
    assert (after.audio_codes == audio.audio_codes).float().mean() > 0.9
    if torch.equal(after.audio_codes, audio.audio_codes.long()):
        torch.testing.assert_close(after.audio_values, audio.audio_values)


def is_clear(original: Any, x: Tensor, levels: tuple[int, ...]) -> Tensor:
    """Which vectors [...] have each channel farther from an edge between two levels than rounding may carry it.

    The projection's dot product of D terms rounds D + 2 times; each bound rounds a few times on a scale of at most
    L, and passes on what came before at most times its slope L/2, so the inner bound's roundings are scaled by L/2
    and the dot product's by L²/4.
    """
    counts = torch.tensor(levels)
    z = F.linear(x.double(), original.project_in.weight.double(), original.project_in.bias.double())
    size = x.abs() @ original.project_in.weight.abs().T + original.project_in.bias.abs()
    half = counts // 2
    position = bound_levels(bound_levels(z, counts, 1.0) * half, counts, 1.0) * half
    edge = ((position - 0.5) - (position - 0.5).round()).abs()
    rounding = EPS * (8 * counts * (1 + counts / 2) + (WIDTH + 2) * size * counts**2 / 4)
    return (edge > rounding).all(-1)


def test_a_usual_fsq_gives_other_codes() -> None:
    """The first bound matters: this test is about what `keep_codebook` does, and a new "fsq" does not."""
    original = build().quantizer
    model = plug_in(nn.Sequential(copy.deepcopy(original)), "fsq")
    assert model[0].quantizer.bound == "tanh"
    assert model[0].quantizer.level_counts == LEVELS
    kept = plug_in(nn.Sequential(copy.deepcopy(original)), "fsq", keep_codebook=True)
    reference = original(vectors())[1]
    assert (kept[0](vectors())[1] == reference).float().mean() > 0.99
    kept[0].quantizer.bound = "tanh"
    assert (kept[0](vectors())[1] == reference).float().mean() < 0.9


def test_gradients_of_a_kept_codebook_are_the_originals() -> None:
    """Straight through the rounding, with the slopes of both bounds and the projections."""
    original = build().quantizer
    kept = plug_in(nn.Sequential(copy.deepcopy(original)), "fsq", keep_codebook=True)
    weight, gradients = vectors(1.0), []
    for module in (original, kept):
        x = vectors().requires_grad_()
        (module(x)[0] * weight).sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients)


@both
def test_a_kept_codebook_is_saved_and_loaded(model_name: str, tmp_path: Any) -> None:
    model = plug_in(build(model_name), "fsq", keep_codebook=True).eval()
    model.save_pretrained(tmp_path)
    loaded = from_pretrained(type(model), tmp_path)
    assert loaded.quantizer.quantizer.bound == "tanh_twice"
    (new, found), (reference, indices) = loaded.quantizer(vectors()), model.quantizer(vectors())
    assert torch.equal(found, indices)
    assert torch.equal(new, reference)


def test_a_kept_codebook_is_one_graph() -> None:
    adapter = plug_in(build(), "fsq", keep_codebook=True).quantizer.eval()
    compiled = torch.compile(adapter, fullgraph=True, backend="eager")
    assert torch.equal(compiled(vectors())[1], adapter(vectors())[1])


def test_what_cannot_be_kept_is_a_sentence() -> None:
    for name in ("vq", "residual"):
        with pytest.raises(ValueError, match=r"codes to keep have \(\(4, 5, 3\), 'tanh_twice'\); expected"):
            plug_in(build(), name, keep_codebook=True)
    with pytest.raises(ValueError, match=r"levels are \(4, 2\), expected at least 3 in each channel"):
        plug_in(build(levels=(4, 2)), "fsq", keep_codebook=True)
    original = build(levels=(3, 3)).quantizer
    original.project_in, original.project_out = nn.Linear(2, 2), nn.Linear(2, 2)
    with pytest.raises(ValueError, match="projects 2 channels to as many, which keep_codebook does not support"):
        plug_in(nn.Sequential(original), "fsq", keep_codebook=True)


def test_half_precision_is_the_models() -> None:
    model = plug_in(build(), FSQ(WIDTH, LEVELS)).bfloat16().eval()
    quantized, indices = model.quantizer(vectors().bfloat16())
    assert quantized.dtype == torch.bfloat16
    assert model.quantizer.from_codes(indices).dtype == torch.bfloat16


def test_unplug_puts_back_what_stood_there() -> None:
    model = build().eval()
    check_unplugs(model, "quantizer", lambda: model(**inputs()).audio_values)
