"""The command line end to end, on runs of three steps."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from benchmarks import plots, utilization
from benchmarks.cli.app import app

ROOT = Path(__file__).resolve().parents[2]


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


@pytest.fixture
def no_pictures(monkeypatch):
    """The drawing left out, which takes longer than the runs."""
    monkeypatch.setattr(plots, "write_all", lambda *_: [])


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


def test_results_repeat(command, no_pictures, tmp_path):
    keys = ("mse", "ssim", "codes_used", "entropy_bits")
    results = []
    for options in ((), ("--fresh",)):
        assert command(*options, names="vq,gumbel").exit_code == 0
        report = json.loads((tmp_path / "out" / "utilization.json").read_text())
        results.append([[numbers[key] for key in keys] for numbers in report["results"]])
    assert results[0] == results[1]


def test_a_rerun_trains_only_what_is_not_there(command, trained, no_pictures, tmp_path):
    def trained_by(*options, **names):
        trained.clear()
        assert command(*options, **names).exit_code == 0
        return trained.copy()

    assert trained_by() == ["vq", "none"]
    assert trained_by() == []
    assert trained_by("--quantizers", "fsq", names="none,none") == ["fsq"]
    assert trained_by("--seeds", 1) == ["vq", "none"]
    assert trained_by("--seeds", 1, "--fresh") == ["vq", "none"]
    parts = tmp_path / "out" / "parts"
    (parts / "vq.npz").write_bytes((parts / "vq.npz").read_bytes()[:-20])
    (parts / "none.json").write_text('{"fingerprint": ')
    assert trained_by("--seeds", 1) == ["vq", "none"]
    (parts / "vq.json").write_text("[]")
    assert trained_by("--seeds", 1) == ["vq"]


@pytest.mark.long("an end-to-end run")
def test_several_seeds_make_one_table(command, trained, tmp_path):
    result = command("--seeds", "1,0")
    assert result.exit_code == 0, result.output
    assert trained == ["vq", "none"] * 2
    out = tmp_path / "out"
    record = json.loads((out / "seeds.json").read_text())
    assert record["settings"]["seeds"] == [0, 1]
    assert [(each["quantizer"], each["seed"]) for each in record["results"]] == [
        (name, seed) for seed in (0, 1) for name in ("vq", "none")
    ]
    for seed in (0, 1):
        (single,) = [each for each in record["results"] if (each["quantizer"], each["seed"]) == ("vq", seed)]
        report = json.loads((out / f"seed-{seed}" / "utilization.json").read_text())
        assert report["settings"]["seed"] == seed
        assert {**report["results"][0], "seed": seed} == single
    (row,) = [line for line in (out / "seeds.md").read_text().splitlines() if line.startswith("| vq ")]
    psnr = [each["psnr_db"] for each in record["results"] if each["quantizer"] == "vq"]
    assert f"{sum(psnr) / 2:.2f} ({min(psnr):.2f} to {max(psnr):.2f})" in row
    with Image.open(out / "seeds.png") as picture:
        assert min(picture.size) > 200
    trained.clear()
    assert command("--seeds", "0,1,2").exit_code == 0
    assert trained == ["vq", "none"]  # of seed 2 alone


def test_an_interrupted_seed_is_reported_as_missing(command, monkeypatch, no_pictures, tmp_path):
    real = utilization.measure

    def interrupted(name, recipe, *rest):
        if (name, recipe.seed) == ("none", 1):
            raise KeyboardInterrupt
        return real(name, recipe, *rest)

    monkeypatch.setattr(utilization, "measure", interrupted)
    assert command("--seeds", "0,1,2").exit_code == 130
    record = json.loads((tmp_path / "out" / "seeds.json").read_text())
    assert len(record["results"]) == 3
    assert record["missing"] == ["none (seed 1)", "vq (seed 2)", "none (seed 2)"]
    assert record["interrupted"]


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
        (["--quantizers", "vq:decay"], "'decay' is not an option"),
        (["--quantizers", "vq:decay=0.5"], "there is no option 'decay'"),
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
    assert "got no name" in result.output


def test_a_missing_package_is_a_sentence():
    block = "import sys, runpy; sys.modules['rich'] = None; runpy.run_module('benchmarks', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", block], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert "quantizers-torch[bench]" in done.stderr
    assert "rich" in done.stderr
    assert "Traceback" not in done.stderr


def test_variants_are_measured_beside_their_base(command, no_pictures, tmp_path):
    result = command(names="vq,vq:distance=cosine")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "utilization.json").read_text())
    plain, cosine = report["results"]
    assert (plain["quantizer"], cosine["quantizer"]) == ("vq", "vq:distance=cosine")
    assert plain["mse"] != cosine["mse"]
