"""The pre-training of wav2vec 2.0, whose quantizer chooses a code in each of several groups."""

import copy
import importlib
import itertools
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from quantizers import GumbelQuantizer, VectorQuantizer, plug_in, take_codebook
from quantizers.monitoring.metrics import code_counts, perplexity
from tests.adapters.common import METHODS, check_unplugs, loss_falls

wav2vec2 = pytest.importorskip(
    "transformers.models.wav2vec2.modeling_wav2vec2", reason="the extra `models` has it"
)
CODES, GROUPS, WIDTH, CHANNELS = 16, 4, 8, 12
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "conv_dim": (CHANNELS, CHANNELS),
    "conv_kernel": (8, 4),
    "conv_stride": (4, 2),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "codevector_dim": WIDTH,
    "num_codevectors_per_group": CODES,
    "num_codevector_groups": GROUPS,
    "proj_codevector_dim": WIDTH,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "feat_proj_dropout": 0.0,
    "feat_quantizer_dropout": 0.0,
    "layerdrop": 0.0,
}


def build(**options: Any) -> Any:
    torch.manual_seed(0)
    return wav2vec2.Wav2Vec2ForPreTraining(wav2vec2.Wav2Vec2Config(**{**SIZES, **options}))


def batch() -> dict[str, Tensor]:
    """Sound, the steps that are masked, and for each others that it is to be told from."""
    generator = torch.Generator().manual_seed(1)
    sound = torch.randn(2, 400, generator=generator)
    steps = 48
    masked = torch.arange(steps).remainder(3).eq(0).expand(2, -1)
    negatives = torch.randint(0, 2 * steps, (2, steps, 5), generator=generator)
    return {"input_values": sound, "mask_time_indices": masked, "sampled_negative_indices": negatives}


@pytest.mark.parametrize("name", METHODS)
def test_trains_by_the_loop_of_the_docstring(name: str) -> None:
    model, inputs = plug_in(build(), name), batch()
    count = inputs["mask_time_indices"].sum()
    temperatures = (max(2 * 0.9**step, 0.5) for step in itertools.count())

    def losses() -> tuple[Tensor, Tensor]:
        temperature = next(temperatures)
        model.set_gumbel_temperature(temperature)
        assert float(model.quantizer.temperature) == pytest.approx(temperature)
        contrastive = model(**inputs).contrastive_loss
        return contrastive, count * model.quantizer.loss

    loss_falls(model, losses)
    assert model(**inputs).loss.isfinite()


@pytest.mark.parametrize("name", METHODS)
def test_vectors_are_those_of_their_indices(name: str) -> None:
    model = plug_in(build(), name).eval()
    h = torch.randn(2, 5, CHANNELS)
    codevectors, use = model.quantizer(h)
    assert codevectors.shape == (2, 5, WIDTH)
    inner = model.quantizer.quantizer
    indices = inner.encode(model.quantizer.project_in(h))
    assert indices.shape == (2, 5, GROUPS)
    torch.testing.assert_close(inner.decode(indices), codevectors)
    books = [perplexity(code_counts(column, inner.codebook_size)) for column in indices.unbind(-1)]
    assert float(use) == pytest.approx(sum(books), rel=1e-5)
    assert (model.quantizer.num_groups, model.quantizer.num_vars) == (GROUPS, inner.codebook_size)


def test_perplexity_is_that_of_the_original_in_evaluation() -> None:
    """Both count chosen codes; a stand-in quantizer returns the original's code numbers."""
    model, h = build().eval(), torch.randn(2, 24, CHANNELS)
    mask = torch.arange(48).view(2, 24) % 5 < 3
    original = model.quantizer
    codevectors, use = original(h)
    _, masked_use = original(h, mask)
    plug_in(model, "vq")
    inner = model.quantizer.quantizer
    for part, codes in zip(inner.components, take_codebook_of(original), strict=True):
        part.set_codebook(codes)
    model.quantizer.project_in = nn.Identity()
    # Its codevectors are codes of the new quantizer, each of which is its own nearest code.
    _, new_masked_use = model.quantizer(codevectors, mask)
    new_codevectors, new_use = model.quantizer(codevectors)
    assert torch.equal(new_codevectors, codevectors)
    torch.testing.assert_close(new_use, use)
    torch.testing.assert_close(new_masked_use, masked_use)
    assert not torch.isclose(use, masked_use)


def take_codebook_of(original: Any) -> Tensor:
    """[groups, K, d / groups]."""
    return take_codebook(nn.Sequential(original))


def test_codes_learn_by_the_loss_of_the_adapter_alone() -> None:
    model, inputs = plug_in(build(), "vq").train(), batch()
    codes = [part.embedding for part in model.quantizer.quantizer.components]
    out = model(**inputs)
    assert out.codevector_perplexity.grad_fn is None
    assert all(gradient is None for gradient in torch.autograd.grad(out.loss, codes, allow_unused=True))
    model(**inputs)
    assert all(gradient.any() for gradient in torch.autograd.grad(model.quantizer.loss, codes))


def test_gumbel_gets_the_settings_of_the_original() -> None:
    model = build()
    model.set_gumbel_temperature(1.5)
    plug_in(model, "gumbel")
    parts = model.quantizer.quantizer.components
    assert [(part.hard, float(part.temperature)) for part in parts] == [(True, 1.5)] * GROUPS
    model.set_gumbel_temperature(0.25)
    assert [float(part.temperature) for part in parts] == [0.25] * GROUPS


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({"quantizer": "gumbel"}, {"grouped": GumbelQuantizer}),
        ({"num_groups": 2, "shared": True}, {"grouped": VectorQuantizer}),
        ({"quantizer": "gumbel", "num_quantizers": 3}, {"residual": GumbelQuantizer}),
    ],
)
def test_groups_are_what_the_options_say(options: dict[str, Any], kinds: dict[str, type]) -> None:
    ((name, kind),) = kinds.items()
    model = plug_in(build(), name, **options)
    inner = model.quantizer.quantizer
    assert inner.num_codebooks == options.get("num_groups", GROUPS) * options.get("num_quantizers", 1)
    leaves = [part for part in inner.modules() if hasattr(part, "set_codebook")]
    assert {type(leaf) for leaf in leaves} == {kind}
    assert len(leaves) == (1 if options.get("shared") else inner.num_codebooks)
    assert model.quantizer(torch.randn(1, 3, CHANNELS))[0].shape == (1, 3, WIDTH)


def test_a_given_quantizer_without_groups_fits_too() -> None:
    model = plug_in(build(conv_dim=(CHANNELS, WIDTH)), VectorQuantizer(WIDTH, CODES)).eval()
    assert isinstance(model.quantizer.project_in, nn.Identity)
    inputs = batch()
    assert model(**inputs).codevector_perplexity <= CODES


def test_codes_can_be_taken_and_not_kept() -> None:
    model = build()
    codes = take_codebook(model)
    assert torch.equal(codes.view(1, GROUPS * CODES, WIDTH // GROUPS), model.quantizer.codevectors)
    original = model.quantizer
    for name in ("vq", "gumbel"):
        with pytest.raises(ValueError, match=f"a linear map of all its {CHANNELS} channels"):
            plug_in(model, name, keep_codebook=True)
    assert model.quantizer is original


def test_copies_and_pickles_after_a_step() -> None:
    model, inputs = plug_in(build(), "vq"), batch()
    model(**inputs)
    standing, h = model.quantizer, torch.randn(1, 3, CHANNELS)
    assert standing.loss.requires_grad
    # The model as a whole has weight norms, which no pickle takes.
    for copied in (copy.deepcopy(model).quantizer, pickle.loads(pickle.dumps(standing))):
        assert copied.loss is None
        assert torch.equal(copied(h)[0], standing(h)[0])


@pytest.mark.parametrize(
    ("package", "name", "channels"),
    [
        ("wav2vec2", "Wav2Vec2", CHANNELS),
        ("wav2vec2_conformer", "Wav2Vec2Conformer", CHANNELS),
        ("unispeech", "UniSpeech", CHANNELS),
        ("unispeech_sat", "UniSpeechSat", SIZES["hidden_size"]),
        ("wavlm", "WavLM", CHANNELS),
    ],
)
def test_the_models_that_follow_it_are_known(package: str, name: str, channels: int) -> None:
    module = importlib.import_module(f"transformers.models.{package}.modeling_{package}")
    config = getattr(module, f"{name}Config")(**SIZES)
    original = getattr(module, f"{name}GumbelVectorQuantizer")(config)
    nn.init.normal_(original.codevectors)
    h = torch.randn(2, 5, channels)
    shapes = [tensor.shape for tensor in original.eval()(h)]
    adapter = plug_in(original, "fsq")
    assert [tensor.shape for tensor in adapter(h)] == shapes


def test_unispeech_runs() -> None:
    unispeech = importlib.import_module("transformers.models.unispeech.modeling_unispeech")
    model = unispeech.UniSpeechForPreTraining(unispeech.UniSpeechConfig(**SIZES, num_ctc_classes=6))
    plug_in(model, "vq")
    model.set_gumbel_temperature(0.5)
    out = model(batch()["input_values"])
    assert out.projected_quantized_states.shape[:2] == (2, 48)
    assert 1 <= out.codevector_perplexity / GROUPS <= CODES


def test_unplug_puts_back_what_stood_there() -> None:
    model, inputs = build().eval(), batch()
    check_unplugs(model, "quantizer", lambda: model(**inputs).loss)
