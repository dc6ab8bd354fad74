"""The examples of models that exist run from beginning to end."""

import json
import runpy
import sys
from pathlib import Path

import pytest

pytest.importorskip("diffusers", reason="the extra `models` has it")
pytest.importorskip("transformers", reason="the extra `models` has it")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "quality", "codebooks", "written"),
    [
        ("image", "psnr_db", (1, 1), {"image.png", "image.json"}),
        ("audio", "snr_db", (4, 4), {"audio.png", "audio.json", "original.wav", "own.wav", "swapped.wav"}),
    ],
)
def test_a_few_steps_of_both_quantizers(
    name: str,
    quality: str,
    codebooks: tuple[int, int],
    written: set[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["example", "--quantizer", "simvq", "--steps", "2", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as done:
        runpy.run_module(f"benchmarks.examples.{name}", run_name="__main__")
    assert done.value.code == 0
    assert {path.name for path in tmp_path.iterdir()} == written
    told = json.loads((tmp_path / f"{name}.json").read_text())
    assert tuple(len(result["codebooks"]) for result in told["results"]) == codebooks
    assert told["results"][1]["quantizer"] == "simvq"
    for result in told["results"]:
        assert isinstance(result[quality], float)
        assert all(0 < book["utilization"] <= 1 for book in result["codebooks"])
    assert "codes used" in capsys.readouterr().out


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    monkeypatch.delitem(sys.modules, "benchmarks.examples", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "diffusers" else name)
    with pytest.raises(SystemExit, match=r"need diffusers from the extras quantizers-torch\[bench,models\]"):
        runpy.run_path("benchmarks/examples/__init__.py")
