"""`fit` end to end, on three hundred vectors."""

import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from matplotlib import image

import quantizers
from quantizers.cli import fit as fit_command
from quantizers.item_ids import SemanticIDs
from tests.cli.conftest import COUNT, Run, clustered

RESULTS = ["config.json", "ids.npy", "items.json", "model.safetensors", "report.json", "report.png"]
RESULTS += ["semantic_ids.json"]


def names(folder: str) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def test_semantic_ids_in_one_command(fit: Run) -> None:
    result = fit()
    assert result.exit_code == 0, result.output
    assert names("ids") == RESULTS  # no checkpoint, no temporary file
    codes = np.load("ids/ids.npy")
    assert codes.shape == (COUNT, 2)
    assert len(np.unique(codes, axis=0)) == COUNT


def test_the_report_says_what_the_files_say(fit: Run, items: Path) -> None:
    assert fit().exit_code == 0
    report = json.loads(Path("ids/report.json").read_text())
    quantizer, codes = quantizers.load("ids"), torch.from_numpy(np.load("ids/ids.npy"))
    x = torch.from_numpy(np.load(items))
    found = quantizer.encode(x)
    errors = (x - quantizer.decode(found).detach()).square().sum(-1).double()
    assert report["fit"]["count"] == COUNT
    assert report["fit"]["inertia"] == pytest.approx(float(errors.mean()), rel=1e-5)
    assert report["fit"]["variance"] == pytest.approx(float((x - x.mean(0)).square().sum(-1).mean()), rel=1e-5)
    assert report["bits_per_vector"] == 10
    assert [use["used"] for use in report["fit"]["codebooks"]] == [len(column.unique()) for column in found.T]
    rows = [tuple(row) for row in found.tolist()]
    assert report["collisions"]["share_of_items_before"] == sum(rows.count(row) > 1 for row in rows) / COUNT
    assert report["collisions"]["share_of_items_after"] == 0
    assert len({tuple(row) for row in codes.tolist()}) == COUNT
    assert report["files"] == RESULTS == names("ids")
    assert report["settings"]["codebook_size"] == 32
    assert report["versions"]["quantizers"] == quantizers.__version__


def test_the_picture_is_a_page(run: Run, items: Path) -> None:
    assert run("fit", items, "--levels", 2, "--codebook-size", 32, "--epochs", 1).exit_code == 0
    height, width, _ = image.imread("ids/report.png").shape
    assert min(height, width) > 800


def test_the_table_says_what_a_reader_wants_to_know(fit: Run) -> None:
    lines = fit().output.splitlines()
    for beginning in (
        "300 vectors of 8 channels",
        "error: ",
        "10 bits per vector",
        "collisions: ",
        "In ids: config",
    ):
        assert any(line.startswith(beginning) for line in lines), beginning
    assert any("perplexity" in line for line in lines)
    assert "report.png" in lines[-1]


def test_one_codebook_keeps_equal_codes_and_has_no_table_of_items(fit: Run, items: Path) -> None:
    assert fit("--quantizer", "vq", "--levels", 1).exit_code == 0
    assert names("ids") == ["config.json", "ids.npy", "model.safetensors", "report.json", "report.png"]
    codes = np.load("ids/ids.npy")
    assert codes.shape == (COUNT,)
    assert codes.dtype == np.int16
    expected = quantizers.load("ids").encode(torch.from_numpy(np.load(items)))
    assert np.array_equal(codes, expected.numpy())


@pytest.mark.parametrize("policy", ["next_code", "auction", "extra_level", "keep"])
def test_each_policy(fit: Run, policy: str) -> None:
    assert fit("--collisions", policy).exit_code == 0
    ids = SemanticIDs.load("ids")
    assert ids.collisions == policy
    assert ids.codes.shape == (COUNT, 3 if policy == "extra_level" else 2)
    assert (ids.collision_rate == 0) == (policy != "keep")


@pytest.mark.parametrize(
    ("name", "words"), [("grouped", ()), ("opq", ()), ("multihead", ()), ("vq", ("--option", "distance=cosine"))]
)
def test_other_quantizers(fit: Run, name: str, words: tuple[str, ...]) -> None:
    levels = ("--levels", 1) if name == "vq" else ()
    result = fit("--quantizer", name, *levels, *words)
    assert result.exit_code == 0, result.output
    assert quantizers.load("ids").codebook_sizes == (32,) * (1 if name == "vq" else 2)
    if words:
        assert quantizers.load("ids").distance == "cosine"  # type: ignore[attr-defined]


def test_a_run_repeats(fit: Run) -> None:
    """Bit for bit, with random projections too, and whatever has been drawn before."""
    words = ("--quantizer", "vq", "--levels", 1, "--option", "code_dim=3")
    for out in ("one", "two"):
        torch.rand(3)
        assert fit(*words, "--out", out).exit_code == 0
    for name in ("ids.npy", "model.safetensors"):
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes()


def test_rows_that_are_not_finite_are_named(fit: Run, items: Path) -> None:
    x = clustered()
    x[[3, 40], 1] = np.nan
    np.save(items, x)
    result = fit()
    assert "2 rows are not finite and have no code: 3, 40" in result.output
    assert json.loads(Path("ids/report.json").read_text())["fit"]["skipped_rows"] == [3, 40]
    assert SemanticIDs.load("ids").skipped == [3, 40]
    assert fit("--quantizer", "vq", "--levels", 1).exit_code == 0
    assert (np.load("ids/ids.npy") < 0).nonzero()[0].tolist() == [3, 40]


def test_parquet_with_names(fit: Run, run: Run, tmp_path: Path) -> None:
    x = clustered()
    rows = [f"item {row}" for row in range(COUNT)]
    pyarrow.parquet.write_table(pyarrow.table({"id": rows, "vector": list(x)}), "items.parquet")
    words = ["--levels", 2, "--codebook-size", 32, "--out", "ids", "--items", "id", "--format", "parquet"]
    assert run("fit", "items.parquet", *words).exit_code == 0
    table = pyarrow.parquet.read_table("ids/ids.parquet")
    assert table.column_names == ["item", "level_1", "level_2"]
    assert table["item"].to_pylist() == rows
    ids = SemanticIDs.load("ids")
    assert np.array_equal(np.stack([table["level_1"], table["level_2"]], -1), ids.codes.numpy())
    assert ids.items == rows
    assert fit().exit_code == 0
    assert names("ids") == RESULTS  # the table of the earlier fit is gone


def test_names_from_a_text_file(fit: Run) -> None:
    Path("names.txt").write_text("".join(f"n{row}\n" for row in range(COUNT)))
    assert fit("--items", "names.txt").exit_code == 0
    assert SemanticIDs.load("ids").items == [f"n{row}" for row in range(COUNT)]


def interrupt_after(monkeypatch: pytest.MonkeyPatch, calls: float) -> list[float]:
    """Let Ctrl-C arrive at some call of the progress. Returns: how many calls are left, in a list."""
    left = [calls]

    def stop(*_: object) -> None:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    monkeypatch.setattr("quantizers.cli.progress.Log.__call__", stop)
    return left


@pytest.mark.parametrize("share", [0.05, 0.35, 0.65, 0.95])
def test_an_interrupted_run_resumes(fit: Run, monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    """With the result of an uninterrupted one, bit for bit, wherever it stopped."""
    with monkeypatch.context() as patched:
        left = interrupt_after(patched, 10**6)
        assert fit("--out", "whole").exit_code == 0
    with monkeypatch.context() as patched:
        interrupt_after(patched, round(share * (10**6 - left[0])))
        result = fit()
    assert result.exit_code == 130, result.output
    assert "Run the same command again to resume" in result.output
    assert "ids.npy" not in names("ids")
    assert fit().exit_code == 0
    assert names("ids") == RESULTS
    for name in ("ids.npy", "model.safetensors"):
        assert Path("ids", name).read_bytes() == Path("whole", name).read_bytes()


def test_a_fit_is_not_repeated_because_its_results_were_not_written(
    fit: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "report.png")

    with monkeypatch.context() as patched:
        patched.setattr("quantizers.cli.results.draw", full)
        assert fit().exit_code == 2
    assert names("ids") == ["fitted.pt"]
    with monkeypatch.context() as patched:
        patched.setattr(fit_command, "fit", lambda *_, **__: pytest.fail("fitted again"))
        assert fit().exit_code == 0
    assert names("ids") == RESULTS


def test_fresh_begins_anew(fit: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        interrupt_after(patched, 9)
        assert fit().exit_code == 130
    result = fit("--seed", 1)
    assert result.exit_code == 2
    assert "checkpoint" in result.output
    assert fit("--seed", 1, "--fresh").exit_code == 0
    assert names("ids") == RESULTS


def test_a_full_disk_leaves_earlier_results(fit: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fit().exit_code == 0
    before = {path.name: path.read_bytes() for path in Path("ids").iterdir()}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "report.png")

    monkeypatch.setattr("quantizers.cli.results.draw", full)
    result = fit("--seed", 1)
    assert result.exit_code == 2
    assert "the disk is full" in result.output
    assert "Traceback" not in result.output
    after = {path.name: path.read_bytes() for path in Path("ids").iterdir() if path.name != "fitted.pt"}
    assert after == before
