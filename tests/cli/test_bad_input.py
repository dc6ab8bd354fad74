"""What cannot work is one sentence on stderr and exit code 2, before anything is computed or written."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from quantizers.cli import fit as fit_command
from tests.cli.conftest import Run, clustered

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _files(items: Path) -> None:
    np.save("flat.npy", np.zeros(8, np.float32))
    np.save("integers.npy", np.zeros((300, 8), np.int64))
    Path("cut.npy").write_bytes(items.read_bytes()[:-100])
    Path("text.npy").write_text("no array")
    Path("names.txt").write_text("a\nb\n")
    Path("twice.txt").write_text("a\n" * 300)
    Path("other").mkdir()
    Path("other/config.json").write_text('{"model": "of somebody else"}')
    Path("mine").mkdir()
    np.save("mine/ids.npy", np.zeros(3))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere.npy"], "nowhere.npy"),
        (["flat.npy"], "flat.npy"),
        (["integers.npy"], "int64"),
        (["cut.npy"], "cut.npy"),
        (["text.npy"], "text.npy"),
        (["items.csv"], "csv"),
        (["items.npy", "--codebook-size", "301"], "items.npy has 300 vectors for codebooks of 301 codes"),
        (["items.npy", "--levels", "2"], "items.npy has 300 vectors for 64 IDs"),
        (["items.npy", "--quantizer", "residul"], "residual"),
        (["items.npy", "--quantizer", "vq", "--levels", "2"], "--levels: vq has one codebook"),
        (["items.npy", "--quantizer", "grouped", "--levels", "3"], "8"),
        (["items.npy", "--option", "distance"], "--option: got 'distance', expected name=value"),
        (["items.npy", "--option", "distanse=cosine"], "distanse"),
        (["items.npy", "--option", "distance=near"], "near"),
        (["items.npy", "--column", "vector"], "column"),
        (["items.npy", "--items", "nobody.txt"], "--items: there is no file nobody.txt"),
        (["items.npy", "--items", "names.txt"], "--items: names.txt has 2 names for 300 embeddings"),
        (["items.npy", "--items", "twice.txt"], "twice"),
        (["items.npy", "--device", "toaster"], "--device: 'toaster' cannot be used"),
        (["items.npy", "--device", "meta"], "--device: 'meta' cannot be used"),
        (["items.npy", "--out", "names.txt"], "names.txt"),
        (["items.npy", "--out", "/proc/results"], "--out: cannot write in /proc/results"),
        (["items.npy", "--out", "other"], "other/config.json"),
        (["items.npy", "--out", "mine"], "mine/ids.npy exists and is not of an earlier fit"),
        (["items.npy", "--method", "magic"], "magic"),
        (["items.npy", "--collisions", "ignore"], "ignore"),
        (["items.npy", "--epochs", "0"], "--epochs"),
        (["items.npy", "--seed", "-1"], "--seed"),
    ],
)
def test_of_fit(run: Run, monkeypatch: pytest.MonkeyPatch, words: list[str], sentence: str) -> None:
    monkeypatch.setattr(fit_command, "fit", lambda *_, **__: pytest.fail("the work began"))
    before = sorted(map(str, Path().rglob("*")))
    result = run("fit", "--codebook-size", "8", *words)
    assert result.exit_code == 2, result.output
    assert sentence in " ".join(result.stderr.split()).replace("│ ", "").replace(" │", "")
    assert "Traceback" not in result.output
    assert [each for each in sorted(map(str, Path().rglob("*"))) if each != "ids"] == before


def test_a_quantizer_without_codes_to_fit(fit: Run) -> None:
    result = fit("--quantizer", "fsq", "--levels", 1)
    assert result.exit_code == 2
    assert "FSQ, which has no codes to fit" in result.output


def test_of_the_other_commands(fit: Run, run: Run) -> None:
    assert fit().exit_code == 0
    assert fit("--quantizer", "vq", "--levels", 1, "--out", "units").exit_code == 0
    np.save("wide.npy", clustered(dim=9))
    np.save("codes.npy", np.full((4, 2), 99))
    np.save("three.npy", np.zeros((4, 3), np.int64))
    np.save("floats.npy", np.zeros((4, 2)))
    decode = ["--quantizer", "ids", "--out", "vectors.npy"]
    for words, sentence in (
        (["encode", "wide.npy", "--quantizer", "ids", "--out", "c.npy"], "9"),
        (["encode", "items.npy", "--quantizer", "nowhere", "--out", "c.npy"], "nowhere"),
        (["encode", "items.npy", "--quantizer", "ids", "--out", "c.csv"], "expected one of .npy, .parquet, .qbs"),
        (["encode", "items.npy", "--quantizer", "ids", "--out", "nowhere/c.npy"], "there is no folder nowhere"),
        (["encode", "items.npy", "--quantizer", "ids", "--out", "c.npy", "--items", "names.txt"], "--items"),
        (["decode", "nowhere.npy", *decode], "there is no file nowhere.npy"),
        (["decode", "codes.npy", *decode], "99"),
        (["decode", "three.npy", *decode], "three.npy has 3 columns of indices; the quantizer has 2 codebooks"),
        (["decode", "floats.npy", *decode], "float64"),
        (["decode", "text.npy", *decode], "text.npy"),
        (["decode", "codes.npy", "--quantizer", "ids", "--out", "vectors.txt"], "expected a .npy file"),
        (["extend", "items.npy", "--ids", "units"], "units has a quantizer without semantic IDs"),
        (["extend", "items.npy", "--ids", "nowhere"], "nowhere"),
        (["extend", "wide.npy", "--ids", "ids"], "9 channels"),
    ):
        result = run(*words)
        assert result.exit_code == 2, (words, result.output)
        assert sentence in result.stderr, words
        assert "Traceback" not in result.output
    assert not {"c.npy", "vectors.npy"} & {path.name for path in Path().iterdir()}


def test_a_missing_package_is_a_sentence() -> None:
    block = "import sys; sys.modules['typer'] = None; from quantizers.cli import main; main.run()"
    done = subprocess.run([sys.executable, "-c", block], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "Error: the command needs typer: pip install 'quantizers-torch[cli]'\n"
