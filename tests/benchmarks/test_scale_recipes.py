"""The comparison of training aids by scale: its table, its picture, and the command."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks import scale_recipes
from benchmarks.cli.app import app
from benchmarks.variants import aids, create


def result(recipe: str, seed: int, psnr: float, used: tuple[int, int]) -> dict[str, Any]:
    sizes = ((1, 1), (4, 4))
    scales = [
        {"size": size, "vectors": 10 * size[0] ** 2, "codes": 20, "used": own, "perplexity": 1.0}
        for size, own in zip(sizes, used, strict=True)
    ]
    return {"recipe": recipe, "variant": "var", "seed": seed, "psnr_db": psnr, "scales": scales}


def record() -> dict[str, Any]:
    first, second = list(scale_recipes.RECIPES)[:2]
    results = [result(first, 0, 20.04, (1, 5)), result(first, 1, 20.26, (3, 5)), result(second, 0, 21.0, (10, 20))]
    results += [result(second, 1, 21.0, (10, 20))]
    results += [result(name, seed, 1.0, (0, 0)) for name in list(scale_recipes.RECIPES)[2:] for seed in (0, 1)]
    machine = {"machine": {"cpu": "a CPU", "threads": 1}, "versions": {"torch": "2"}, "date": "2026-01-01"}
    return {**machine, "data": {"name": "digits"}, "seeds": [0, 1], "results": results}


def test_a_row_has_the_range_of_the_seeds_for_each_scale():
    sheet = scale_recipes.sheet(record())
    assert sheet.headings == ["", "1×1, 10", "4×4, 160", "PSNR dB"]
    first, second = list(scale_recipes.RECIPES)[:2]
    assert sheet.rows[0] == [first, "5–15", "25", "20.0–20.3"]
    assert sheet.rows[1] == [second, "50", "100", "21.0"]
    assert "20 codes used" in sheet.title
    assert "2 seeds" in sheet.title


@pytest.mark.parametrize("variant", scale_recipes.RECIPES.values())
def test_every_recipe_is_a_variant(variant: str):
    quantizer = create(variant, dim=4, codebook_size=8, channel_dim=1)
    assert not quantizer.per_vector
    assert (aids(variant).replace == "dead") == ("replace" in variant)


def run(*words: str) -> Any:
    return CliRunner().invoke(app, ["scales", *words], env={"COLUMNS": "200"})


def test_the_command_writes_what_it_says_and_loads_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recipes = dict(list(scale_recipes.RECIPES.items())[-2:])
    monkeypatch.setattr(scale_recipes, "RECIPES", recipes)
    monkeypatch.setattr(scale_recipes, "IMAGES", 32)
    words = ("--share=0.005", "--seeds=0,1", "--out", str(tmp_path))
    first = run(*words)
    assert first.exit_code == 0, first.output
    folder = tmp_path / "digits"
    stored = json.loads((folder / "scales.json").read_text())
    assert [(each["recipe"], each["seed"]) for each in stored["results"]] == [
        (name, seed) for name in recipes for seed in (0, 1)
    ]
    for each in stored["results"]:
        assert [scale["vectors"] for scale in each["scales"]] == [32 * side**2 for side in (1, 2, 4)]
        assert all(0 < scale["used"] <= min(64, scale["vectors"]) for scale in each["scales"])
    text = (folder / "scales.md").read_text()
    assert all(name in text for name in recipes)
    assert (folder / "scales.png").stat().st_size > 1000
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.pt")}
    assert len(before) == 4
    assert run(*words).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert json.loads((folder / "scales.json").read_text())["results"] == stored["results"]


def test_options_that_do_not_fit_are_named(tmp_path: Path):
    out = str(tmp_path)
    for words, message in (
        (["--data=faces"], "got 'faces'; expected digits or photographs"),
        (["--images", out], "the digits are scikit-learn's"),
        (["--seeds=-1"], "expected a whole number from 0"),
        (["--device=nowhere"], "--device: 'nowhere'"),
    ):
        result = run(*words, "--out", out)
        assert result.exit_code == 2, result.output
        assert message in " ".join(result.output.split())
