"""`python -m quantizers diagnose`."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import quantizers
from tests.cli.conftest import Run, clustered


@pytest.fixture(autouse=True)
def _saved(items: Path) -> None:
    torch.manual_seed(0)
    quantizers.save(quantizers.VectorQuantizer(8, 16), "vq")
    quantizers.save(quantizers.create("vq", 8, 16, channel_dim=1), "first")
    quantizers.save(quantizers.create("var", 8, codebook_size=16, scales=(0.5, 1)), "maps")


def test_it_prints_what_python_prints(run: Run, items: Path) -> None:
    result = run("diagnose", "vq", items, "--batch-size", 70)
    assert result.exit_code == 0, result.output
    x = torch.from_numpy(clustered())
    report = quantizers.diagnose(quantizers.load("vq"), [x])
    assert result.stdout == f"{report}\n"
    assert "spread-and-offset" in result.stdout
    assert "quantizer.initialize_from(vectors)" in result.stdout
    assert run("diagnose", "first", items).exit_code == 0


def test_it_writes_a_picture_and_data(run: Run, items: Path) -> None:
    result = run("diagnose", "vq", items, "--out", "picture.png", "--json", "data.json")
    assert result.exit_code == 0, result.output
    assert Path("picture.png").read_bytes().startswith(b"\x89PNG")
    data = json.loads(Path("data.json").read_text())
    assert data["measures"][0]["vectors"] == 300
    assert {finding["kind"] for finding in data["findings"]} >= {"spread-and-offset"}
    assert sorted(path.name for path in Path().iterdir() if "new" in path.name) == []


def test_after_a_fit_nothing_is_wrong(fit: Run, run: Run, items: Path) -> None:
    assert fit("--epochs", 4).exit_code == 0
    result = run("diagnose", "ids", items)
    assert result.exit_code == 0, result.output
    assert "Nothing is wrong that this diagnosis can see." in result.stdout


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere", "items.npy"], "there is no config.json in nowhere"),
        (["vq", "nowhere.npy"], "nowhere.npy"),
        (["vq", "wide.npy"], "9"),
        (["maps", "items.npy"], "maps holds a quantizer of maps"),
        (
            ["vq", "items.npy", "--out", "picture.jpg"],
            "picture.jpg ends in '.jpg', expected one of .png, .pdf, .svg",
        ),
        (["vq", "items.npy", "--out", "nowhere/picture.png"], "there is no folder nowhere"),
        (["vq", "items.npy", "--json", "vq"], "vq is a folder"),
        (["vq", "items.npy", "--device", "toaster"], "'toaster' cannot be used"),
    ],
)
def test_what_cannot_work_is_a_sentence(run: Run, words: list[str], sentence: str) -> None:
    np.save("wide.npy", clustered(dim=9))
    result = run("diagnose", *words)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert "Traceback" not in result.output
