"""Models with quantizers inside, saved and loaded, by us and by their own libraries.

diffusers and transformers build a model on `meta`, which holds no values, fill in what the files hold and, in
transformers, initialise the rest. Uninitialised memory is NaN in these tests.
"""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from torch import Tensor, nn

import quantizers
from quantizers import plug_in, unplug
from quantizers.adapters import from_pretrained, plugged
from quantizers.core.state.initialization import SelfInitialized
from tests.adapters.common import METHODS
from tests.adapters.models import NAMES, build, check_filled, codes, pairs, plugging, rebuilt
from tests.cases import CASES, Case, assert_same_state, batch, seeded, state_of

diffusers = pytest.importorskip("diffusers", reason="the extra `models` has it")
transformers = pytest.importorskip("transformers", reason="the extra `models` has it")

every_model = pytest.mark.parametrize("model_name", NAMES)


@pytest.fixture(autouse=True)
def _quiet() -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(a, b, strict=True))


@pairs()
def test_a_plugged_model_comes_back(model_name: str, name: str, tmp_path: Path) -> None:
    model = plug_in(build(model_name), name).eval()
    model.save_pretrained(tmp_path)
    loaded = from_pretrained(type(model), tmp_path)
    check_filled(loaded)
    assert equal(codes(loaded), codes(model))
    assert loaded.state_dict().keys() == model.state_dict().keys()
    check_filled(unplug(loaded))  # what stood there has first weights


@pairs()
def test_a_class_that_plugs_in_by_itself_is_loaded_by_its_library(
    model_name: str, name: str, tmp_path: Path
) -> None:
    plain = build(model_name)
    cls = plugging(plain, name)
    model = rebuilt(cls, plain).eval()
    model.save_pretrained(tmp_path)
    loaded = cls.from_pretrained(tmp_path)
    check_filled(loaded)
    assert equal(codes(loaded), codes(model))


@pairs(without=("vqmodel",))
def test_what_a_checkpoint_of_the_plain_model_lacks_is_drawn(model_name: str, name: str, tmp_path: Path) -> None:
    plain = build(model_name)
    plain.save_pretrained(tmp_path)
    cls = plugging(plain, name)
    loaded, built = cls.from_pretrained(tmp_path), rebuilt(cls, plain)
    check_filled(loaded)
    drawn_alike(loaded, built)


def drawn_alike(loaded: nn.Module, built: nn.Module) -> None:
    """Values that are constant at the start are equal; the others have nearly the same distribution."""
    for path, adapter in plugged(built).items():
        reference = loaded.get_submodule(path).quantizer.state_dict()
        for name, first in adapter.quantizer.state_dict().items():
            if first.numel() == 0 or first.min() == first.max():
                assert torch.equal(reference[name], first), name
            elif first.numel() >= 16:
                ratio = reference[name].double().std() / first.double().std()
                assert 1 / 4 < ratio < 4, (name, ratio)


# In a model of one's own


class Config(transformers.PretrainedConfig):  # type: ignore[misc, name-defined]
    model_type = "quantizing"

    def __init__(self, name: str = "vq", options: dict[str, Any] | None = None, **kwargs: Any) -> None:
        self.name, self.options = name, options or {}
        super().__init__(**kwargs)


def model_of(make: Callable[[], nn.Module]) -> Any:
    """A class of models that transformers knows nothing of, with a quantizer in it."""

    class Own(transformers.PreTrainedModel):  # type: ignore[misc, name-defined]
        config_class = Config

        def __init__(self, config: Config) -> None:
            super().__init__(config)
            self.encoder = nn.Linear(6, 4)
            self.inner = nn.ModuleDict({"quantizer": make()})
            self.before = {name: value.clone() for name, value in self.inner.state_dict().items()}
            self.post_init()

    return Own


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_quantizer_in_a_model_of_transformers_comes_back(case: Case, tmp_path: Path) -> None:
    cls = model_of(case.build)
    model = cls(Config())
    for name, value in model.inner.state_dict().items():
        given = any(isinstance(option, nn.Module) for option in case.options.values())  # the user's own
        assert given or torch.equal(value, model.before[name]), f"{name} was drawn again by post_init"
    model.save_pretrained(tmp_path)
    for dtype in (torch.float32, torch.bfloat16):
        loaded = cls.from_pretrained(tmp_path, dtype=dtype)
        check_filled(loaded)
        for name, value in loaded.inner.state_dict().items():
            assert torch.equal(value, model.inner.state_dict()[name]), name


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_quantizer_whose_weights_are_in_no_file_draws_them(case: Case) -> None:
    cls = model_of(case.build)
    loaded = cls.from_pretrained(None, config=Config(), state_dict={})
    check_filled(loaded)
    first = cls(Config()).inner.state_dict()
    for name, value in loaded.inner.state_dict().items():
        if first[name].numel() and first[name].min() == first[name].max():
            assert torch.equal(value, first[name]), name


def test_weights_that_were_loaded_are_not_drawn_with_those_that_are_missing() -> None:
    cls = model_of(lambda: quantizers.create("ema_vq", dim=4, codebook_size=8))
    model = cls(Config())
    state = {name: value for name, value in model.state_dict().items() if not name.endswith("cluster_size")}
    loaded = cls.from_pretrained(None, config=Config(), state_dict=state)
    check_filled(loaded)
    assert torch.equal(loaded.inner.quantizer.embedding, model.inner.quantizer.embedding)


def test_a_quantizer_that_cannot_draw_its_weights_says_so() -> None:
    class Own(SelfInitialized):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

    with pytest.raises(
        TypeError, match=r"Own has no method reset_parameters, and its scale were built on the meta"
    ):
        model_of(Own).from_pretrained(None, config=Config(), state_dict={})


@pytest.mark.parametrize("case", CASES, ids=str)
def test_functions_that_initialise_a_model_leave_a_quantizer_alone(case: Case) -> None:
    """Those that ask for layers of torch, as most do, and transformers' own."""

    def init(module: nn.Module) -> None:
        layers = (nn.Linear, nn.Embedding, nn.LayerNorm, nn.Conv1d, nn.Conv2d)
        names = ("Linear", "Conv", "Embedding", "BatchNorm", "LayerNorm", "RMSNorm")
        if isinstance(module, layers) or any(name in type(module).__name__ for name in names):
            for parameter in module.parameters(recurse=False):
                nn.init.constant_(parameter, 7.0)

    model = nn.ModuleDict({"encoder": nn.Linear(4, 4), "quantizer": case.build()})
    given = {
        id(part) for value in case.options.values() if isinstance(value, nn.Module) for part in value.modules()
    }
    before = copy.deepcopy(model.quantizer.state_dict())
    model.apply(init)
    assert (model.encoder.weight == 7).all()
    if not given:  # a module that the user passes is the user's
        for name, value in model.quantizer.state_dict().items():
            assert torch.equal(value, before[name]), name


# On meta


@pytest.mark.parametrize("assign", [True, False], ids=["assigned", "copied"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_quantizer_from_meta_is_moved_and_trained_as_any(case: Case, assign: bool) -> None:
    """Averages that are gathered over several forwards begin at zero, not at uninitialized memory."""
    first = case.build().accumulate(2)
    with torch.device("meta"):
        other = case.build().accumulate(2)
    if not assign:
        other.to_empty(device="cpu")
    other.load_state_dict(copy.deepcopy(first.state_dict()), assign=assign)
    other.to("cpu")
    for seed in range(2):
        assert torch.equal(
            seeded(other, batch(30, seed=seed)).indices, seeded(first, batch(30, seed=seed)).indices
        )
    assert_same_state(state_of(other), state_of(first))


def test_a_quantizer_that_is_given_keeps_its_values() -> None:
    with torch.device("meta"):
        model = build("dac")
    quantizer = quantizers.create("residual", dim=16, codebook_size=8, channel_dim=1, num_quantizers=3)
    before = copy.deepcopy(quantizer.state_dict())
    plug_in(model, quantizer)
    for name, value in quantizer.state_dict().items():
        assert torch.equal(value, before[name])


def test_codes_that_are_not_there_cannot_be_kept() -> None:
    model = build("vqmodel")
    model.quantize.to("meta")
    with pytest.raises(ValueError, match="'quantize', which is on meta, without values: load the model with its"):
        plug_in(model, "vq", keep_codebook=True)
    plug_in(model, "vq")
    check_filled(model)


@every_model
def test_codes_that_were_kept_come_back(model_name: str, tmp_path: Path) -> None:
    plain = build(model_name)
    if model_name in ("dac", "wav2vec2", "xcodec2"):
        pytest.skip("their codes are kept by other searches or grids, or not at all")
    base = type(plain)
    model = plug_in(plain, "ema_vq", keep_codebook=True).eval()
    model.save_pretrained(tmp_path)
    assert equal(codes(from_pretrained(base, tmp_path)), codes(model))


# Offloaded


@pytest.mark.parametrize("model_name", ["dac", "encodec"])
@pytest.mark.parametrize("name", [*METHODS, "residual"])
def test_codes_are_decoded_where_weights_are_brought(model_name: str, name: str) -> None:
    """accelerate leaves a model on `meta`, and brings a module's weights for the time of its call."""
    model, audio = plug_in(build(model_name), name).eval(), torch.randn(1, 1, 64)

    def decoded(of: Tensor) -> Tensor:
        values = model.decode(audio_codes=of) if model_name == "dac" else model.decode(of, [None] * len(of))
        return values.audio_values

    with torch.no_grad():
        encoded = model.encode(audio).audio_codes
        before = decoded(encoded)
        accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
        assert torch.equal(decoded(encoded), before)
        assert torch.equal(model.encode(audio).audio_codes, encoded)


# What a configuration says


@pytest.mark.parametrize("model_name", sorted(set(NAMES) - {"vqmodel"}))
def test_other_models_of_a_configuration_know_nothing_of_it(model_name: str, tmp_path: Path) -> None:
    model = build(model_name)
    config, cls = model.config, type(model)
    plug_in(model, "fsq")
    assert model.config.quantizers
    baseline = cls(config)
    assert "quantizers" not in config.to_dict()
    baseline.save_pretrained(tmp_path)
    assert "quantizers" not in json.loads((tmp_path / "config.json").read_text())
    with pytest.raises(ValueError, match="saved without a quantizer of this library"):
        from_pretrained(cls, tmp_path)


def test_a_model_built_from_a_configuration_that_tells_of_quantizers(tmp_path: Path) -> None:
    config = plug_in(build("dac"), "vq").config
    transformers.DacModel(config).save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"'quantizer', whose weights are in none .* saved without it; load it with DacModel"
    ):
        from_pretrained(transformers.DacModel, tmp_path)


def test_parts_of_a_model_go_on_sharing_its_configuration() -> None:
    model = build("mimi")

    def sharing() -> list[set[str]]:
        groups: dict[int, set[str]] = {}
        for name, module in model.named_modules():
            if hasattr(module, "config"):
                groups.setdefault(id(module.config), set()).add(name)
        return list(groups.values())

    before = sharing()
    plug_in(model, "vq")
    assert sharing() == before
    assert max(map(len, before)) > 1


@pytest.mark.parametrize("model_name", ["vqmodel", "dac"])
def test_the_library_reports_what_is_missing_besides(model_name: str, tmp_path: Path) -> None:
    model = plug_in(build(model_name), "vq")
    model.save_pretrained(tmp_path)
    loaded, report = from_pretrained(type(model), tmp_path, output_loading_info=True)
    assert equal(codes(loaded), codes(model))
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]


def chameleon() -> Any:
    vq = {
        "embed_dim": 8,
        "num_embeddings": 32,
        "latent_channels": 8,
        "base_channels": 32,
        "channel_multiplier": [1, 1],
        "num_res_blocks": 1,
        "attn_type": "none",
    }
    tokens = {"<image>": 4, **{f"IMGIMGBS{chr(65 + place)}Z": 10 + place for place in range(20)}}
    return transformers.ChameleonConfig(
        vocab_size=99,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        vq_config=vq,
        vocabulary_map=tokens,
    )


@pytest.mark.parametrize("head_first", [True, False])
def test_a_base_model_and_one_with_a_head_read_each_other(head_first: bool, tmp_path: Path) -> None:
    classes = (transformers.ChameleonForConditionalGeneration, transformers.ChameleonModel)
    saved, other = classes if head_first else classes[::-1]
    model = plug_in(saved(chameleon()), "vq")
    model.save_pretrained(tmp_path)
    loaded = from_pretrained(other, tmp_path)
    assert equal(codes(loaded), codes(model))
    loaded.save_pretrained(tmp_path / "again")
    assert equal(codes(from_pretrained(saved, tmp_path / "again")), codes(model))


def test_a_model_that_is_saved_under_other_names(tmp_path: Path) -> None:
    """transformers writes `model.vqmodel` of Emu3 as `vqmodel`."""
    text = transformers.Emu3TextConfig(
        vocab_size=99,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=16,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    tokens = {"<image>": 4, "<|extra_200|>": 5, **{f"<|visual token{i:06d}|>": 10 + i for i in range(64)}}
    config = transformers.Emu3Config(
        text_config=text, vq_config=build("emu3").config.to_dict(), vocabulary_map=tokens
    )
    model = plug_in(transformers.Emu3ForConditionalGeneration(config), "vq")
    model.save_pretrained(tmp_path)
    assert equal(codes(from_pretrained(type(model), tmp_path)), codes(model))


def test_several_codes_where_a_language_model_reads_one() -> None:
    model = transformers.ChameleonForConditionalGeneration(chameleon())
    with pytest.raises(
        ValueError, match="4 indices per vector, but ChameleonForConditionalGeneration reads one token"
    ):
        plug_in(model, "residual")


def test_a_pipeline_takes_the_loaded_model_as_a_component(tmp_path: Path) -> None:
    """The way that the docstring of `from_pretrained` shows; a pipeline alone would load the model without it."""
    model = plug_in(build("vqmodel"), "vq").eval()
    unet = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=16,
        out_channels=8,
        layers_per_block=1,
        block_out_channels=(8,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        norm_num_groups=4,
    )
    diffusers.LDMSuperResolutionPipeline(model, unet, diffusers.DDIMScheduler()).save_pretrained(tmp_path)
    vqvae = from_pretrained(diffusers.VQModel, tmp_path, subfolder="vqvae")
    pipeline = diffusers.DiffusionPipeline.from_pretrained(tmp_path, vqvae=vqvae)
    assert equal(codes(pipeline.vqvae), codes(model))


# Their values are those of a diffusers model of one's own, in its dtype or another


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_quantizer_in_a_model_of_diffusers_comes_back(case: Case, tmp_path: Path) -> None:
    class Own(diffusers.ModelMixin, diffusers.ConfigMixin):  # type: ignore[misc, name-defined]
        @diffusers.configuration_utils.register_to_config
        def __init__(self, width: int = 4) -> None:
            super().__init__()
            self.encoder = nn.Linear(6, width)
            self.quantizer = case.build()

    model = Own()
    model.save_pretrained(tmp_path)
    for options in ({}, {"low_cpu_mem_usage": False}):
        loaded = Own.from_pretrained(tmp_path, **options)
        check_filled(loaded)
        for name, value in loaded.quantizer.state_dict().items():
            assert torch.equal(value, model.quantizer.state_dict()[name]), name
