"""Robustness checks: this library keeps its contract, and the checks catch a careless quantizer."""

import importlib.util
import json
import math
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from benchmarks.cli import robustness as cli
from benchmarks.cli.app import app
from benchmarks.kernels.rivals import PEER
from benchmarks.robustness import report
from benchmarks.robustness.checks import CHECKS, Check, Value
from benchmarks.robustness.run import Builders, Result, installed, run
from benchmarks.robustness.subjects import BUILDERS, METHODS, OURS, NotApplicableError, Subject

WORDS = {
    "nan_loss": "yes",
    "decode_minus_one": "zero",
    "decode_too_large": "IndexError",
    "half_loss": "yes",
    "one_graph": "yes",
    "export": "yes",
    "deep_copy": "yes",
    "pickled": "yes",
}
# A code's sum and count are each rounded three times on the way, and then divided: seven roundings, in percent.
LARGEST = {"codebook_that_was_set": 100 * 7 * 2.0**-24, "largest_tensor": 0.99}
GRAPHS = ("graph_breaks", "one_graph", "export")  # seconds each: here for two methods, in tests/graphs for all
by_key = pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.key)


def done(check: Check, builders: Builders) -> Result:
    (result,) = run(lambda title: None, builders, [check]).done
    return result


def is_as_promised(key: str, answer: Value) -> bool:
    if key in WORDS:
        return answer == WORDS[key]
    return isinstance(answer, float) and answer <= LARGEST.get(key, 0.0)


@by_key
def test_the_heading_is_in_words(check: Check) -> None:
    """No heading contains a dotted or underscored Python name, such as `values.autocast`."""
    assert not re.search(r"\w\.\w|_", check.title), check.title


@by_key
def test_ours_give_what_the_contract_promises(check: Check) -> None:
    methods = ("ema_vq", "fsq") if check.key in GRAPHS else METHODS
    result = done(check, {OURS: {method: BUILDERS[OURS][method] for method in methods}})
    answers = [answer for answer in result.values[OURS].values() if answer is not None]
    assert answers
    assert not result.failures
    assert all(is_as_promised(check.key, answer) for answer in answers), answers


class Careless(nn.Module):
    """Everything that goes wrong, at once."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("codebook", torch.randn(Subject.size, Subject.dim))
        self.register_buffer("average", self.codebook.clone())

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        if self.codebook.isnan().all():  # waits for the device, and breaks the graph
            return x, x[..., 0].long(), x.sum()
        scores = self.codebook.square().sum(-1) - 2 * (x @ self.codebook.T)  # cancels far from the origin
        indices = scores.argmin(-1)
        with torch.no_grad():  # in evaluation too, again when recomputed, and before the codes are read
            self.average += 0.1 * x.sum((0, 1)) + 1e-3 * torch.randn_like(self.average)
            self.codebook.lerp_(self.average, 0.1)
        codes = self.codebook[indices]
        return x + (codes - x).detach(), indices, (codes.clone() - x).square().mean()

    def decode(self, indices: Tensor) -> Tensor:
        return self.codebook[indices % len(self.codebook)]


class CarelessSubject(Subject):
    def __init__(self) -> None:
        super().__init__(Careless())

    def decode(self, indices: Tensor) -> Tensor:
        return self.module.decode(indices)

    def codes(self) -> Tensor:
        return self.module.codebook.clone()

    def set_codebook(self, codes: Tensor) -> None:
        self.module.codebook.copy_(codes)  # and not the averages

    put_codes = set_codebook


@by_key
def test_a_careless_quantizer_is_caught(check: Check) -> None:
    answer = done(check, {OURS: {"careless": CarelessSubject}}).values[OURS]["careless"]
    assert answer is not None
    assert not is_as_promised(check.key, answer), answer


@pytest.mark.parametrize("method", METHODS)
def test_both_libraries_are_asked_the_same(method: str) -> None:
    """With the same codes both find the same ones, and say so in the same words."""
    pytest.importorskip("vector_quantize_pytorch")
    ours, peer = (BUILDERS[library][method]() for library in (OURS, PEER))
    x = torch.randn(1, 50, ours.dim)
    outputs = []
    for subject in (ours, peer):
        if method != "fsq":
            subject.put_codes(torch.randn(ours.size, ours.dim, generator=torch.Generator().manual_seed(1)))
        subject.module.eval()
        outputs.append(subject.forward(x))
        assert (subject.dim, subject.size) == (ours.dim, ours.size)
        # Passing the gradient straight through costs two roundings of numbers below 8.
        assert (subject.decode(outputs[-1].indices) - outputs[-1].quantized).abs().max() <= 2 * 8 * 2**-24
    assert torch.equal(outputs[0].indices, outputs[1].indices)
    assert outputs[0].quantized.shape == outputs[1].quantized.shape == x.shape


def answering(name: str, answer: object) -> Check:
    def ask(subject: Subject) -> Value:
        if isinstance(answer, type):
            raise answer("first line\nsecond line")
        return answer  # type: ignore[return-value]

    return Check(name, name, f"Asks {name}.", ask)


def test_every_kind_of_answer_has_its_words() -> None:
    answers = [0.0, 12.3456, math.nan, math.inf, "zero", NotApplicableError, OSError]
    checks = [answering(f"check {place}", answer) for place, answer in enumerate(answers)]
    results = run(lambda title: None, {OURS: dict.fromkeys(METHODS, CarelessSubject)}, checks)
    rows = report.sheet(report.full_record(results)).rows
    assert [row[1] for row in rows] == ["0", "12.3", "NaN", "infinite", "zero", "-", "error: OSError"]
    assert results.done[-1].failures["ours, vq"] == "first line"


def test_without_the_peer_ours_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    builders, sentences = installed()
    assert builders.keys() == {OURS}
    assert sentences == [f"{PEER} is left out: the package vector_quantize_pytorch is not installed."]


def command(folder: Path) -> "CliRunner.Result":  # type: ignore[name-defined]
    return CliRunner().invoke(app, ["robustness", "--out", str(folder)])


def test_the_command_writes_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vector_quantize_pytorch")
    monkeypatch.setattr(cli, "CHECKS", [check for check in CHECKS if check.key == "decode_minus_one"])
    result = command(tmp_path)
    assert result.exit_code == 0, result.output
    assert "robustness.json, robustness.md" in " ".join(result.output.split())
    record = json.loads((tmp_path / "robustness.json").read_text())
    assert {"machine", "versions", "revision", "date"} <= record.keys()
    assert PEER in record["versions"]
    (check,) = record["checks"]
    assert check["answers"][OURS] == dict.fromkeys(METHODS, "zero")
    assert check["answers"][PEER].keys() == set(METHODS)
    assert "| decode of −1 | zero<br>" in (tmp_path / "robustness.md").read_text()


@pytest.mark.parametrize("before", [0, 1])
def test_an_interrupted_run_reports_what_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    checks = [answering("first", 0.0), answering("second", KeyboardInterrupt)][1 - before :]
    monkeypatch.setattr(cli, "CHECKS", checks)
    result = command(tmp_path)
    assert result.exit_code == 130
    assert "Interrupted" in result.output
    assert (tmp_path / "robustness.json").exists() is bool(before)


def test_a_folder_that_cannot_be_written_is_a_sentence() -> None:
    result = command(Path(__file__))
    assert result.exit_code == 2
    assert "cannot write" in result.output
    assert "Traceback" not in result.output


def test_the_committed_table_is_that_of_the_committed_numbers() -> None:
    folder = Path(__file__).parents[2] / "benchmarks" / "results" / "robustness-cpu"
    record = json.loads((folder / "robustness.json").read_text())
    assert (folder / "robustness.md").read_text() == report.markdown(record)
    assert [check["check"] for check in record["checks"]] == [check.key for check in CHECKS]
    assert not record["interrupted"]
    assert not record["left_out"]
    for check in record["checks"]:
        answers = [answer for answer in check["answers"][OURS].values() if answer is not None]
        assert all(is_as_promised(check["check"], answer) for answer in answers)
