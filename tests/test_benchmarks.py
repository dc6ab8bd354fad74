"""The benchmarks: their data, their measures, and the command line end to end on a tiny run."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import quantizers
from benchmarks import crops, data, evaluation, files, machine, utilization, variants
from benchmarks.autoencoder import Autoencoder, build
from benchmarks.cli import app
from benchmarks.cost import peak_memory
from benchmarks.errors import InputError
from benchmarks.training import UsageWindow

ROOT = Path(__file__).resolve().parent.parent
CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A folder of three small pictures, one of them in a subfolder and grey."""
    folder = tmp_path_factory.mktemp("pictures")
    noise = np.random.default_rng(0).integers(0, 256, (3, 64, 96, 3), dtype=np.uint8)
    (folder / "sub").mkdir()
    Image.fromarray(noise[0]).save(folder / "a.png")
    Image.fromarray(noise[1]).save(folder / "b.jpg")
    Image.fromarray(noise[2, :, :, 0]).save(folder / "sub" / "grey.png")
    return folder


@pytest.fixture
def command(pictures, tmp_path):
    """Runs `utilization` with tiny settings; options given later win."""

    def run(*options, names="vq,none"):
        tiny = ["--quantizers", names, "--codebook-size", "16", "--dim", "4", "--steps", "3"]
        where = ["--images", str(pictures), "--out", str(tmp_path / "out")]
        return CliRunner().invoke(app, ["utilization", *tiny, *where, *map(str, options)])

    return run


@pytest.fixture
def trained(monkeypatch):
    """The names of the quantizers that are trained, as it happens."""
    names = []
    real = utilization.measure

    def measure(name, *rest):
        names.append(name)
        return real(name, *rest)

    monkeypatch.setattr(utilization, "measure", measure)
    return names


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
    statistics = evaluation.code_statistics(torch.tensor([3, 0, 3, 0]), codes_per_pixel=1 / 16)
    assert statistics == pytest.approx((2, 0.5, 2.0, 1.0, 1 / 16))


def test_usage_window_forgets():
    window = UsageWindow(4, CPU)
    used = [
        int(window.update(step, torch.tensor([3, -1]) if step else torch.tensor([0, 1]))) for step in range(51)
    ]
    assert used[:2] == [2, 3]
    assert used[49:] == [3, 1]


def test_the_same_seed_gives_every_quantizer_the_same_autoencoder():
    states = [build(n, dim=4, codebook_size=16, seed=0).state_dict() for n in quantizers.available()]
    shared = [key for key in states[0] if key.startswith(("encoder", "decoder"))]
    assert len(shared) > 10
    assert all(torch.equal(states[0][key], state[key]) for state in states for key in shared)


def test_variants_carry_options():
    assert variants.split_list("vq, fsq:levels=(8, 5),ema_vq") == ["vq", "fsq:levels=(8, 5)", "ema_vq"]
    ema = variants.create("ema_vq:decay=0.8:gradient=rotation", dim=4, codebook_size=16)
    assert (ema.decay, ema.gradient) == (0.8, quantizers.rotation)
    fsq = variants.create("fsq:levels=(8, 5):codebook_size=None", dim=4, codebook_size=16)
    assert fsq.codebook_size == 40
    assert re.fullmatch(r"[\w.=-]+", variants.file_name("fsq:levels=(8, 5)"))


def test_variants_are_measured_beside_their_base(command, tmp_path):
    result = command(names="vq,vq:distance=cosine")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "utilization.json").read_text())
    plain, cosine = report["results"]
    assert (plain["quantizer"], cosine["quantizer"]) == ("vq", "vq:distance=cosine")
    assert plain["mse"] != cosine["mse"]


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


def test_report_and_pictures(command, tmp_path):
    result = command()
    assert result.exit_code == 0, result.output
    out = tmp_path / "out"
    report = json.loads((out / "utilization.json").read_text())
    assert set(report) >= {"settings", "data", "machine", "versions", "revision", "date", "results", "missing"}
    assert report["settings"]["steps"] == 3
    assert [file["name"] for file in report["data"]["held_out"]] == ["a.png"]
    vq, none = report["results"]
    assert [vq["quantizer"], none["quantizer"]] == ["vq", "none"]
    assert 1 <= vq["codes_used"] <= 16
    assert vq["utilization"] == vq["codes_used"] / 16
    assert vq["bits_per_pixel"] == pytest.approx(vq["entropy_bits"] / 16)
    assert none["codes_used"] is none["perplexity"] is None
    for numbers in (vq, none):
        assert numbers["psnr_db"] == pytest.approx(-10 * math.log10(numbers["mse"]))
        assert numbers["step_ms"] > 0
        assert numbers["peak_memory_bytes"] > 100_000
    rows = [line for line in (out / "utilization.md").read_text().splitlines() if line.startswith("| none")]
    assert rows[0].split("|")[2].strip() == "-"
    for name in ("bars", "curves", "rank_frequency", "reconstructions"):
        with Image.open(out / f"{name}.png") as picture:
            picture.load()
            assert min(picture.size) > 200
    assert not list(out.rglob("*.tmp"))


def test_results_repeat(command, tmp_path):
    keys = ("mse", "ssim", "codes_used", "entropy_bits", "peak_memory_bytes")
    results = []
    for options in ((), ("--fresh",)):
        assert command(*options, names="vq,gumbel").exit_code == 0
        report = json.loads((tmp_path / "out" / "utilization.json").read_text())
        results.append([[numbers[key] for key in keys] for numbers in report["results"]])
    assert results[0] == results[1]


def test_a_rerun_trains_only_what_is_not_there(command, trained, tmp_path):
    def trained_by(*options, **names):
        trained.clear()
        assert command(*options, **names).exit_code == 0
        return trained.copy()

    assert trained_by() == ["vq", "none"]
    assert trained_by() == []
    assert trained_by("--quantizers", "fsq", names="none,none") == ["fsq"]
    assert trained_by("--seed", 1) == ["vq", "none"]
    assert trained_by("--seed", 1, "--fresh") == ["vq", "none"]
    parts = tmp_path / "out" / "parts"
    (parts / "vq.npz").write_bytes((parts / "vq.npz").read_bytes()[:-20])
    (parts / "none.json").write_text('{"fingerprint": ')
    assert trained_by("--seed", 1) == ["vq", "none"]
    (parts / "vq.json").write_text("[]")
    assert trained_by("--seed", 1) == ["vq"]


def test_an_interrupted_run_reports_what_is_finished(command, monkeypatch, tmp_path):
    real = utilization.measure

    def interrupted(name, *rest):
        if name == "none":
            raise KeyboardInterrupt
        return real(name, *rest)

    monkeypatch.setattr(utilization, "measure", interrupted)
    result = command()
    assert result.exit_code == 130
    report = json.loads((tmp_path / "out" / "utilization.json").read_text())
    assert [numbers["quantizer"] for numbers in report["results"]] == ["vq"]
    assert report["missing"] == ["none"]
    assert report["interrupted"] is True
    assert (tmp_path / "out" / "bars.png").exists()
    assert "Not finished: none" in result.output


def test_an_interruption_before_anything_is_finished(command, monkeypatch, tmp_path):
    monkeypatch.setattr(utilization, "measure", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    result = command()
    assert result.exit_code == 130
    assert "before any quantizer was finished" in result.output
    assert not (tmp_path / "out" / "utilization.json").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--quantizers", "simqv"], "simvq"),
        (["--quantizers", "vq:decay"], "'decay' is no option"),
        (["--quantizers", "vq:decay=0.5"], "unexpected keyword argument 'decay'"),
        (["--quantizers", "ema_vq:decay=2"], "decay is 2"),
        (["--codebook-size", "1"], "--codebook-size"),
        (["--dim", "0"], "--dim"),
        (["--steps", "0"], "--steps"),
        (["--device", "toaster"], "'toaster' cannot be used"),
        (["--device", "meta"], "'meta' cannot be used"),
        (["--images", "/nowhere/at/all"], "is not a folder"),
        (["--out", __file__], "cannot write"),
    ],
)
def test_bad_input_is_a_sentence(command, trained, options, sentence):
    result = command(*options)
    assert result.exit_code == 2
    assert sentence in result.output
    assert "Traceback" not in result.output
    assert trained == []


def test_no_quantizer_named(command):
    result = command(names=" ,")
    assert result.exit_code == 2
    assert "no name given" in result.output


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(InputError, match="is empty"):
        data.from_folder(tmp_path)
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(InputError, match=r"no usable picture among 1 files.*notes\.txt"):
        data.from_folder(tmp_path)
    Image.new("RGB", (40, 40)).save(tmp_path / "only.png")
    with pytest.raises(InputError, match=r"only one usable picture.*at least two"):
        data.from_folder(tmp_path)


def test_a_missing_package_is_a_sentence():
    block = "import sys, runpy; sys.modules['rich'] = None; runpy.run_module('benchmarks', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", block], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert "quantizers-torch[bench]" in done.stderr
    assert "rich" in done.stderr
    assert "Traceback" not in done.stderr
