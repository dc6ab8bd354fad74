"""The examples run from beginning to end."""

import importlib.util
import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers", reason="the extra `models` has it")
pytest.importorskip("transformers", reason="the extra `models` has it")

WAVES = ("original", "own", "swapped")
needs_xcodec2 = pytest.mark.skipif(
    importlib.util.find_spec("transformers.models.xcodec2") is None, reason="an older transformers lacks Xcodec2"
)


def run_example(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> dict[str, Any]:
    arguments = ["example", "--steps", "2", "--out", str(folder), *options]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as done:
        runpy.run_module(f"benchmarks.examples.{name}", run_name="__main__")
    assert done.value.code == 0
    return json.loads((folder / f"{name}.json").read_text())


def check_spread(found: dict[str, Any], seeds: int) -> None:
    assert len(found["values"]) == seeds
    assert found["mean"] == pytest.approx(sum(found["values"]) / seeds)
    assert (found["sd"] is None) == (seeds == 1)


def check_record(record: dict[str, Any], steps: int, seeds: int) -> None:
    assert record["steps"] == steps
    assert record["seeds"] == list(range(seeds))
    assert record["seconds"] > 0
    assert record["machine"]["cores"] > 0
    assert {"torch", "transformers", "diffusers", "quantizers"} <= record["versions"].keys()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "qualities", "codebooks", "sounds"),
    [
        ("image", ["psnr_db"], 1, False),
        ("audio", ["snr_db", "mel_distance_db"], 4, True),
        pytest.param("speech", ["mel_distance_db"], 1, True, marks=needs_xcodec2),
    ],
)
def test_a_few_steps_of_both_quantizers(
    name: str,
    qualities: list[str],
    codebooks: int,
    sounds: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    record = run_example(name, tmp_path, monkeypatch, "--quantizer", "simvq", "--seeds", "1")
    waves = {f"{name}_{which}.wav" for which in WAVES} if sounds else set()
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.png", f"{name}.json"} | waves
    check_record(record, 2, 1)
    own, swapped = record["results"]
    assert own["quantizer"].endswith("own")
    assert swapped["quantizer"] == "simvq"
    for result in (own, swapped):
        for quality in qualities:
            check_spread(result[quality], 1)
        assert len(result["codebooks"]) == codebooks
        for codebook in result["codebooks"]:
            assert 0 < codebook["utilization"]["mean"] <= 1
            assert 1 <= codebook["perplexity"]["mean"] <= codebook["codes"]
    assert "perplexity" in capsys.readouterr().out


@pytest.mark.slow
def test_masked_prediction_with_codes_of_two_quantizers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = importlib.import_module("benchmarks.examples.heard")
    monkeypatch.setattr(heard, "TRAINED", 64)
    monkeypatch.setattr(heard, "HELD_OUT", 16)
    heard.corpora.cache_clear()
    record = run_example("masked", tmp_path, monkeypatch, "--quantizer", "fsq", "--seeds", "2")
    heard.corpora.cache_clear()
    assert {path.name for path in tmp_path.iterdir()} == {"masked.png", "masked.json"}
    check_record(record, 2, 2)
    results = {result["quantizer"]: result for result in record["results"]}
    assert list(results) == ["no encoder", "untrained", "random_projection", "fsq"]
    for name, result in results.items():
        trained = name in ("random_projection", "fsq")
        for measure in ("heard_vowels_percent", "hidden_vowels_percent"):
            check_spread(result[measure], 2)
        for measure in ("guessed_percent", "most_frequent_percent"):
            assert (result[measure] is not None) == trained
        assert [codebook["codes"] for codebook in result["codebooks"]] == [64] * trained


def test_masked_prediction_needs_one_codebook(monkeypatch: pytest.MonkeyPatch) -> None:
    masked = importlib.import_module("benchmarks.examples.masked")
    corpus = importlib.import_module("benchmarks.examples.heard").Corpus(*[torch.randn(2, 3, masked.DIM)] * 3)
    monkeypatch.setattr(masked, "corpora", lambda _: (corpus, corpus))
    message = "residual has 4 codebooks of 64 codes, expected one of 64"
    with pytest.raises(masked.typer.BadParameter, match=message):
        masked.labels("residual", 0)


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    monkeypatch.delitem(sys.modules, "benchmarks.examples", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "diffusers" else name)
    with pytest.raises(SystemExit, match=r"need diffusers from the extras quantizers-torch\[bench,models\]"):
        runpy.run_path("benchmarks/examples/__init__.py")


def test_a_transformers_without_xcodec2_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    importlib.import_module("benchmarks.examples")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name.endswith("xcodec2") else name)
    with pytest.raises(SystemExit, match="needs a version of transformers that has Xcodec2"):
        runpy.run_path("benchmarks/examples/speech.py")
