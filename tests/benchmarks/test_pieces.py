"""The pieces of the benchmarks: data, crops, measures, variants, files."""

import json
import math
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import quantizers
from benchmarks import crops, data, evaluation, files, machine, plots, variants
from benchmarks.aids import Aids
from benchmarks.autoencoder import Autoencoder, build
from benchmarks.codes import numbered
from benchmarks.cost import peak_memory
from benchmarks.errors import InputError
from benchmarks.training import Recipe, UsageWindow, train, training_step
from quantizers.core import registry

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


def test_bundled_photographs_are_there_and_held_out_whole():
    photographs = data.bundled()
    assert photographs.skipped == ()
    train, held_out = ({p.name for p in half} for half in (photographs.train, photographs.held_out))
    assert {"chelsea.png", "flower.jpg"} == held_out
    assert "china.jpg" in train
    assert not train & held_out


def test_training_batches_repeat_with_the_seed_and_only_with_it():
    photographs = data.bundled().train
    first, again, other = (crops.training_batches(photographs, 8, seed) for seed in (1, 1, 2))
    batches = [next(first), next(first)]
    torch.manual_seed(5)  # the global generator plays no part
    assert torch.equal(batches[0], next(again))
    assert torch.equal(batches[1], next(again))
    assert not torch.equal(batches[0], batches[1])
    assert not torch.equal(batches[0], next(other))
    assert batches[0].shape == (8, 3, 32, 32)
    assert -1 <= batches[0].min() < -0.5 < 0.5 < batches[0].max() <= 1


def test_training_crops_reach_every_corner_and_are_flipped():
    pixels = torch.arange(33 * 34, dtype=torch.uint8).reshape(1, 33, 34).expand(3, -1, -1)
    batch = next(crops.training_batches([data.Photograph("p", 1, pixels)], 256, 0))
    assert len({tuple(crop.flatten().tolist()) for crop in batch}) == 2 * 3 * 2


def test_held_out_tiles_are_the_grid_and_the_limit_is_kept():
    pixels = torch.randint(0, 256, (3, 70, 100), dtype=torch.uint8)
    photograph = data.Photograph("p", 1, pixels)
    tiles = crops.held_out_tiles([photograph])
    assert tiles.shape == (2 * 3, 3, 32, 32)
    assert torch.equal(tiles[5], crops.to_model_range(pixels[:, 32:64, 64:96]))
    assert torch.equal(crops.held_out_tiles([photograph], limit=2), tiles[[0, 3]])
    assert crops.held_out_views([photograph], count=4).shape == (4, 3, 64, 64)
    assert crops.held_out_views([photograph], count=0).shape == (0, 3, 64, 64)


def test_own_pictures_are_split_and_unusable_files_are_named_once(pictures, tmp_path):
    for path in pictures.rglob("*.*g"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "broken.png").write_bytes((pictures / "a.png").read_bytes()[:200])
    (tmp_path / "notes.txt").write_text("no picture")
    Image.new("RGB", (31, 200)).save(tmp_path / "thin.png")
    photographs = data.from_folder(tmp_path)
    assert [p.name for p in photographs.held_out] == ["a.png"]
    assert [p.name for p in photographs.train] == ["b.jpg", "grey.png"]
    assert sorted(sentence.split(":")[0] for sentence in photographs.skipped) == [
        "broken.png",
        "notes.txt",
        "thin.png",
    ]
    assert "31×200" in " ".join(photographs.skipped)


def test_unusual_pictures_are_read(tmp_path):
    deep = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.new("RGBA", (40, 40), (10, 20, 30, 0)).save(tmp_path / "clear.png")
    Image.new("L", (3000, 60)).save(tmp_path / "long.png")
    pixels = data.read_pixels(tmp_path / "deep.png")
    assert pixels.shape == (3, 64, 64)
    assert abs(pixels.float().mean() - 127.5) < 1
    assert data.read_pixels(tmp_path / "clear.png")[:, 0, 0].tolist() == [10, 20, 30]
    assert data.read_pixels(tmp_path / "long.png").shape == (3, 20, 1024)


class Shift(nn.Module):
    def __init__(self, by):
        super().__init__()
        self.by = nn.Parameter(torch.tensor(by))

    def forward(self, x):
        return x + self.by


@pytest.mark.parametrize(("shift", "mse", "psnr"), [(0.0, 0.0, math.inf), (0.2, 0.01, 20.0)])
def test_evaluation_of_a_known_error(shift, mse, psnr):
    quantizer = quantizers.create("none", dim=3, codebook_size=16, channel_dim=1)
    tiles = torch.rand(5, 3, 32, 32) * 1.6 - 1  # below 0.6, so that nothing is clipped
    result, counts = evaluation.evaluate(Autoencoder(nn.Identity(), quantizer, Shift(shift)), tiles, batch_size=2)
    assert result.mse == pytest.approx(mse, rel=1e-4)
    assert result.psnr_db == pytest.approx(psnr, rel=1e-4)
    assert result.ssim == pytest.approx(1.0) if shift == 0 else result.ssim < 1
    assert counts.numel() == 0
    assert result.codes_used is result.utilization is result.perplexity is result.bits_per_pixel is None


def test_code_statistics_of_known_counts():
    statistics = evaluation.code_statistics(torch.tensor([[3, 0, 3, 0]]), codes_per_pixel=1 / 16)
    assert statistics == pytest.approx((2, 0.5, 2.0, 1.0, 1 / 16))


def test_codes_of_several_codebooks_are_counted_apart():
    residual = quantizers.create("residual", dim=3, codebook_size=4, num_quantizers=2)
    indices = torch.tensor([[[0, 0], [1, 3]], [[0, -1], [1, 3]]])
    counts = evaluation.count_codes(indices, residual)
    assert counts.tolist() == [[2, 2, 0, 0], [1, 0, 0, 2]]
    entropies = [1.0, math.log2(3) - 2 / 3]
    statistics = evaluation.code_statistics(counts, codes_per_pixel=2 / 16)
    mean = sum(entropies) / 2
    assert statistics == pytest.approx((4, 0.5, 2**mean, mean, sum(entropies) / 16))
    assert numbered(indices, residual)[0].tolist() == [[0, 4], [1, 7]]


def test_tokens_of_a_pyramid_are_of_one_codebook():
    pyramid = quantizers.create("multiscale", dim=3, codebook_size=4, axes=1)
    assert evaluation.count_codes(torch.tensor([[0, 0, 3, 1, 1]]), pyramid).tolist() == [[2, 2, 0, 1]]


def test_training_aids_stand_among_a_variants_options():
    name = "vq:warm_start=True:replace=anchors:distance=cosine"
    assert variants.aids(name) == Aids(warm_start=True, replace="anchors")
    assert variants.create(name, dim=4, codebook_size=8).distance == "cosine"
    assert variants.aids("vq:distance=cosine") == Aids()
    emeans = Aids(replace="split", decay_to=0.999, final_means=True)
    assert variants.aids("ema_vq:decay=0.9:decay_to=0.999:replace=split:final_means=True") == emeans
    for wrong in (
        "vq:warm_start=1",
        "vq:replace=all",
        "gumbel:anneal=1",
        "gumbel:anneal=(1,0)",
        "ema_vq:decay_to=2",
        "vq:final_means=1",
    ):
        with pytest.raises(InputError, match="expected"):
            variants.create(wrong, dim=4, codebook_size=8)
    for without in ("vq:anneal=(1,0.5)", "fsq:anneal=None"):
        with pytest.raises(InputError, match="no temperature"):
            variants.create(without, dim=4, codebook_size=8)
    with pytest.raises(InputError, match="no decay"):
        variants.create("vq:decay_to=0.5", dim=4, codebook_size=8)


@pytest.mark.parametrize(
    ("variant", "first", "last"),
    [
        ("gumbel", 1.0, 1 / 16),
        ("gumbel:anneal=(2,0.5)", 2.0, 0.5),
        ("gumbel:anneal=None:temperature=0.25", 0.25, 0.25),
    ],
)
def test_a_temperature_falls_as_the_variant_asks(variant: str, first: float, last: float):
    model = build(variant, dim=4, codebook_size=8, seed=0)
    temperatures = []
    model.quantizer.register_forward_pre_hook(lambda module, given: temperatures.append(float(module.temperature)))
    batches = iter(torch.rand(3, 2, 3, 8, 8))
    train(model, batches, Recipe(steps=3), lambda *step: None, variants.aids(variant))
    assert temperatures[0] == first
    assert temperatures == sorted(temperatures, reverse=True)
    assert float(model.quantizer.temperature) == pytest.approx(last, rel=2**-23)  # it is kept in float32


def test_a_decay_rises_as_the_variant_asks():
    variant = "residual:quantizer=ema_vq:num_quantizers=2:decay=0.5:decay_to=0.9"
    model = build(variant, dim=4, codebook_size=8, seed=0)
    decays = []
    model.quantizer.register_forward_pre_hook(
        lambda module, given: decays.append([stage.decay for stage in module.components])
    )
    train(model, iter(torch.rand(3, 2, 3, 8, 8)), Recipe(steps=3), lambda *step: None, variants.aids(variant))
    assert decays == [[each] * 2 for each in (0.5, pytest.approx(0.6), pytest.approx(0.8))]
    assert [stage.decay for stage in model.quantizer.components] == [0.9] * 2


@pytest.mark.parametrize("resumes", [False, True])
def test_final_means_are_of_the_last_inputs_and_the_last_weights(monkeypatch, resumes: bool):
    """Also where a run goes on from a checkpoint in between; training itself is that without them."""
    monkeypatch.setattr("benchmarks.aids.FINAL_BATCHES", 3)
    batches = torch.rand(5, 2, 3, 8, 8)
    models = [build("ema_vq", dim=4, codebook_size=8, seed=0) for _ in range(2)]
    for model, wants in zip(models, (True, False), strict=True):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        helpers = Aids(final_means=wants).helpers(model, optimizer, 5)
        for step, images in enumerate(batches):
            training_step(model, optimizer, images)
            for helper in helpers:
                helper.step()
            if wants and resumes and step == 3:
                state = helpers[0].state_dict()
                helpers[0].handle.remove()
                helpers = Aids(final_means=True).helpers(model, optimizer, 5)
                helpers[0].load_state_dict(state)
    final, plain = models
    assert not torch.equal(final.quantizer.codebook, plain.quantizer.codebook)
    quantizers.final_means(plain, list(batches[2:]))
    assert all(torch.equal(final.state_dict()[key], value) for key, value in plain.state_dict().items())
    with pytest.raises(ValueError, match="no codes"):
        Aids(final_means=True).helpers(build("fsq", dim=4, codebook_size=8, seed=0), optimizer, 5)


def test_the_hardness_rises_over_the_first_half_of_the_steps():
    variant = "interpolated:quantizer=fsq:harden=True"
    model = build(variant, dim=4, codebook_size=8, seed=0)
    seen = []
    model.quantizer.register_forward_pre_hook(lambda module, given: seen.append(float(module.hardness)))
    batches = iter(torch.rand(8, 2, 3, 8, 8))
    train(model, batches, Recipe(steps=8), lambda *step: None, variants.aids(variant))
    assert seen == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0]


def test_a_model_without_a_hardness_is_not_hardened():
    model = build("vq", dim=4, codebook_size=8, seed=0)
    with pytest.raises(InputError, match=r"got harden=True; module is a .*, in which no quantizer has a hardness"):
        variants.aids("vq:harden=True").hardness(model, steps=8)
    with pytest.raises(InputError, match="got harden=1; expected True or False"):
        variants.aids("vq:harden=1")
    assert Aids().hardness(model, steps=8) == []


def test_a_warm_start_moves_the_codes_alone_and_takes_no_batch_from_training():
    batches = [torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(i)) for i in range(20)]
    model = build("vq", dim=4, codebook_size=16, seed=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    left = Aids(warm_start=True).start(model, iter(batches), CPU)
    assert all(torch.equal(a, b) for a, b in zip(left, batches, strict=True))
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"quantizer.embedding"}
    with torch.no_grad():
        used = model.quantizer.encode(torch.cat([model.encoder(batch) for batch in batches[:16]])).unique()
    assert len(used) == 16


def test_usage_window_forgets():
    window = UsageWindow(4, CPU)
    used = [
        int(window.update(step, torch.tensor([3, -1]) if step else torch.tensor([0, 1]))) for step in range(51)
    ]
    assert used[:2] == [2, 3]
    assert used[49:] == [3, 1]
    assert window.seen() == 3


def test_the_same_seed_gives_every_quantizer_the_same_autoencoder():
    states = [build(n, dim=4, codebook_size=16, seed=0).state_dict() for n in quantizers.available()]
    shared = [key for key in states[0] if key.startswith(("encoder", "decoder"))]
    assert len(shared) > 10
    assert all(torch.equal(states[0][key], state[key]) for state in states for key in shared)


def test_variants_carry_options():
    assert variants.split_list("vq, fsq:levels=(8, 5),ema_vq") == ["vq", "fsq:levels=(8, 5)", "ema_vq"]
    pyramid = "var:scales=[(0.5, 1), (1, 1)]"
    assert variants.split_list(f"{pyramid},vq,{pyramid}") == [pyramid, "vq", pyramid]
    ema = variants.create("ema_vq:decay=0.8:gradient=rotation", dim=4, codebook_size=16)
    assert (ema.decay, ema.gradient) == (0.8, quantizers.rotation)
    fsq = variants.create("fsq:levels=(8, 5):codebook_size=None", dim=4, codebook_size=16)
    assert fsq.codebook_size == 40
    assert re.fullmatch(r"[\w.=-]+", variants.file_name("fsq:levels=(8, 5)"))


def test_recipes_can_be_built_and_trained():
    assert variants.split_list("vq,recipes") == ["vq", *variants.RECIPES]
    for name in variants.RECIPES:
        model = build(name, dim=4, codebook_size=16, seed=0)
        train(model, iter(torch.rand(20, 2, 3, 8, 8)), Recipe(steps=2), lambda *step: None, variants.aids(name))


def test_what_is_compared_does_not_grow_with_the_registry(monkeypatch):
    monkeypatch.setitem(registry._BUILDERS, "another", quantizers.VectorQuantizer)
    assert "another" in variants.split_list("all")
    assert "another" not in variants.COMPARED
    assert {*map(variants.base_name, variants.COMPARED)} <= {*quantizers.available()} - {"another"}


def test_each_method_has_a_look_of_its_own_that_stays(monkeypatch):
    before = [plots.appearance(name) for name in variants.CORE]
    assert all(look not in before[:place] for place, look in enumerate(before))
    monkeypatch.setitem(registry._BUILDERS, "another", quantizers.VectorQuantizer)
    assert [plots.appearance(name) for name in variants.CORE] == before
    assert plots.appearance("another") not in before


def test_peak_memory_is_what_is_alive_at_once():
    def work():
        first = torch.zeros(1000, 1000)
        second = first + 1
        del first
        torch.zeros(500, 1000).add_(second[:500])

    assert peak_memory(work, CPU) == pytest.approx(8_000_000, abs=1000)


def test_machine_record():
    record = machine.record(CPU)
    assert record["machine"]["processor"]
    assert record["machine"]["cores"] >= 1
    assert record["versions"]["quantizers"] == quantizers.__version__


def test_revision_is_none_outside_git_and_says_when_the_tree_is_dirty(tmp_path):
    assert machine.revision(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@localhost"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "--no-verify", "-m", "x"], check=True)
    clean = machine.revision(tmp_path)
    assert len(clean["commit"]) == 40
    assert clean["dirty"] is False
    (tmp_path / "new").touch()
    assert machine.revision(tmp_path) == {**clean, "dirty": True}


def test_json_is_valid_and_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    files.write_json(path, {"a": [math.nan, math.inf, 1.5]})
    assert json.loads(path.read_text()) == {"a": [None, None, 1.5]}
    monkeypatch.setattr(os, "replace", lambda *paths: (_ for _ in ()).throw(OSError("no")))
    with pytest.raises(OSError, match="no"):
        files.write_json(path, {})
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
    assert json.loads(path.read_text())["a"]


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(InputError, match="is empty"):
        data.from_folder(tmp_path)
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(InputError, match=r"no usable picture among 1 files.*notes\.txt"):
        data.from_folder(tmp_path)
    Image.new("RGB", (40, 40)).save(tmp_path / "only.png")
    with pytest.raises(InputError, match=r"only one usable picture.*at least two"):
        data.from_folder(tmp_path)
