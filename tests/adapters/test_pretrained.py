"""Models with a quantizer inside, saved and loaded by their own library."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from quantizers import plug_in, unplug
from quantizers.adapters import from_pretrained, plugged, save_pretrained
from quantizers.core.gradients import straight_through
from tests.adapters.common import METHODS
from tests.adapters.images.test_diffusers import build, images

diffusers = pytest.importorskip("diffusers", reason="the extra `models` has it")


@pytest.mark.parametrize("name", [*METHODS, "residual"])
def test_comes_back_with_its_quantizer(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, x = plug_in(build(), name), images()
    for _ in range(2):
        model(x)  # averages move
    model.eval().save_pretrained(tmp_path)
    loaded = from_pretrained(diffusers.VQModel, tmp_path)
    assert not loaded.training
    assert torch.equal(loaded(x).sample, model(x).sample)
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert "TRAIN this model" not in capsys.readouterr().err  # which their library says of missing weights


def test_a_class_of_ones_own_comes_back(tmp_path: Path) -> None:
    class Derived(diffusers.VQModel):  # type: ignore[misc, name-defined]
        pass

    plug_in(build(), "simvq").save_pretrained(tmp_path)
    model = from_pretrained(Derived, tmp_path)
    assert type(model) is Derived
    assert list(plugged(model)) == ["quantize"]


def test_numbers_that_were_assigned_come_back(tmp_path: Path) -> None:
    model = plug_in(build(), "vq")
    model.quantize.quantizer.commitment_weight = 0.125
    save_pretrained(model, tmp_path)
    (adapter,) = plugged(from_pretrained(diffusers.VQModel, tmp_path)).values()
    assert adapter.quantizer.commitment_weight == 0.125


@pytest.mark.parametrize("shard", ["5GB", "1KB"])
def test_variants_in_one_folder(shard: str, tmp_path: Path) -> None:
    """They may hold other numbers, as a model that was trained on."""
    models = {None: plug_in(build(), "vq").eval(), "ema.1": plug_in(build(), "vq").eval()}
    for variant, model in models.items():
        model.save_pretrained(tmp_path, variant=variant, max_shard_size=shard)
    for variant, model in models.items():
        loaded = from_pretrained(diffusers.VQModel, tmp_path, variant=variant)
        assert torch.equal(loaded.quantize.quantizer.codebook, model.quantize.quantizer.codebook)


def compiled(model: Any) -> Any:
    return torch.compile(model, backend="eager")


@pytest.mark.parametrize("wrap", [compiled, torch.nn.DataParallel, torch.nn.Sequential])
def test_a_model_within_another_knows_what_is_plugged_into_it(wrap: Any, tmp_path: Path) -> None:
    model, x = build().eval(), images()
    wrapped = wrap(model)
    plug_in(wrapped, "simvq")
    model.save_pretrained(tmp_path)
    assert torch.equal(from_pretrained(diffusers.VQModel, tmp_path)(x).sample, model(x).sample)
    unplug(wrapped)
    assert not model.config["quantizers"]


@pytest.mark.parametrize("shard", ["5GB", "1KB"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_parts_of_a_model_share_its_configuration(dtype: torch.dtype, shard: str, tmp_path: Path) -> None:
    """As in transformers, where encoders and attention layers have it too; saved in pieces, or in half."""
    mimi = pytest.importorskip("tests.adapters.audio.test_mimi")
    model, audio = plug_in(mimi.build().eval(), "simvq").to(dtype), mimi.tones().to(dtype)
    model.save_pretrained(tmp_path, max_shard_size=shard)
    loaded = from_pretrained(mimi.MimiModel, tmp_path, dtype=dtype)
    assert list(plugged(loaded)) == mimi.PATHS
    assert torch.equal(loaded(audio).audio_values, model(audio).audio_values)
    assert loaded.config.quantizers == model.config.quantizers
    unplug(loaded)
    assert not hasattr(loaded.config, "quantizers")


def test_a_quantizer_beside_the_base_model(tmp_path: Path) -> None:
    wav2vec2 = pytest.importorskip("tests.adapters.audio.test_wav2vec2")
    model, x = plug_in(wav2vec2.build().eval(), "vq"), wav2vec2.batch()
    model.save_pretrained(tmp_path)
    loaded = from_pretrained(type(model), tmp_path)
    assert list(plugged(loaded)) == ["quantizer"]
    assert torch.equal(loaded(**x).projected_quantized_states, model(**x).projected_quantized_states)


def test_unplugged_model_is_saved_as_its_own(tmp_path: Path) -> None:
    model, x = build().eval(), images()
    before = model(x).sample
    unplug(plug_in(model, "simvq")).save_pretrained(tmp_path)
    assert not json.loads((tmp_path / "config.json").read_text())["quantizers"]
    assert torch.equal(diffusers.VQModel.from_pretrained(tmp_path)(x).sample, before)
    with pytest.raises(ValueError, match="saved without a quantizer of this library"):
        from_pretrained(diffusers.VQModel, tmp_path)
    with pytest.raises(ValueError, match="has no quantizer plugged in"):
        save_pretrained(model, tmp_path)


def test_what_json_cannot_tell_is_passed(tmp_path: Path) -> None:
    calls: list[Tensor] = []

    def gradient(z: Tensor, codes: Tensor) -> Tensor:
        calls.append(z)
        return straight_through(z, codes)

    plug_in(build(), "vq", gradient=gradient).save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"at 'quantize' cannot be built, with overrides=\{\}: .* gradient=\.\.\."
    ):
        from_pretrained(diffusers.VQModel, tmp_path)
    loaded = from_pretrained(diffusers.VQModel, tmp_path, overrides={"gradient": gradient})
    loaded(images())
    assert len(calls) == 1


def test_what_cannot_be_loaded_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        from_pretrained(diffusers.VQModel, tmp_path / "none")
    with pytest.raises(TypeError, match="folder is None, expected the path"):
        from_pretrained(diffusers.VQModel, None)  # type: ignore[arg-type]
    model = plug_in(build(), "simvq")
    model.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    told = json.loads(file.read_text())
    told["quantizers"][0]["quantizer"]["arguments"]["codebook_size"] = 32
    file.write_text(json.dumps(told))
    with pytest.raises(ValueError, match=r"weights under 'quantize.' in .* do not fit"):
        from_pretrained(diffusers.VQModel, tmp_path)
    told["quantizers"][0]["at"] = "quantise"
    file.write_text(json.dumps(told))
    with pytest.raises(
        ValueError, match=r"VQModel lists quantizers at \['quantise'\], where the model has nothing"
    ):
        from_pretrained(diffusers.VQModel, tmp_path)
