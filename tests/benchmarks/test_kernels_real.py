"""The benchmark of the kernels on real data: its pieces on small tensors, and its parts of the command."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from benchmarks.cli.app import app
from benchmarks.kernels import latents, load, measure_real, pruned, real, real_bars, real_report, timing
from benchmarks.kernels.exactness import wrong_share
from benchmarks.kernels.latents import Latents
from benchmarks.kernels.memory import allowance
from benchmarks.kernels.pruned import ALL_CODES, EVALUATION, FIRST, FIRST_CALL, PRUNED, TRAINING, Search
from benchmarks.kernels.real import NORMAL, SIMVQ_LATENTS, VQ_LATENTS
from benchmarks.kernels.requirements import Bar
from benchmarks.kernels.results import RealRow, Slowdown
from benchmarks.kernels.rivals import FAISS, Rival
from benchmarks.kernels.shapes import Shape, draw
from benchmarks.kernels.steps import STEPS
from benchmarks.kernels.summary import real_summary
from benchmarks.kernels.timing import Times

CPU = torch.device("cpu")
TINY = Latents(real.VQ_VARIANT, Shape(100, 16, 4), steps=3, further=70)


def constant(milliseconds: float) -> Times:
    return Times(milliseconds, milliseconds, milliseconds, milliseconds, milliseconds, 3)


def row(data: str, shape: Shape, share: float | None = None, **milliseconds: float) -> RealRow:
    times = {name.replace("_", " "): constant(value) for name, value in milliseconds.items()}
    return RealRow(shape, [], allowance(shape), times, {}, gemm="product", data=data, share=share)


def ours(evaluation: float, training: float, all_codes: float) -> dict[str, float]:
    return {EVALUATION: evaluation, TRAINING: training, ALL_CODES: all_codes}


# Searches that leave codes out


class Scripted(Search):
    """A search that yields given shares."""

    def __init__(self, *shares: float) -> None:
        super().__init__(torch.zeros(1, 1), torch.zeros(1, 1), "auto")
        self.shares = list(shares)
        self.runs = 0

    def __call__(self) -> tuple[torch.Tensor, ...]:
        self.share = self.shares[min(self.runs, len(self.shares) - 1)]
        self.runs += 1
        return ()


def test_a_search_settles_as_soon_as_it_rules_out_codes() -> None:
    search = Scripted(1.0, 1.0, 0.99, 0.5, 0.25)
    search.settle()
    assert (search.runs, search.share) == (5, 0.25)


def test_a_search_that_rules_out_nothing_settles_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    search = Scripted(1.0)
    search.settle()
    assert search.runs == pruned.MOST_SETTLING + 1
    monkeypatch.setattr(pruned, "SETTLING_S", -1)
    slow = Scripted(1.0)
    slow.settle()
    assert slow.runs == pruned.LEAST_SETTLING + 2


def test_what_was_forgotten_is_found_again_before_a_run() -> None:
    search = Scripted(0.1, 0.1, 1.0, 1.0, 0.2, 0.2)
    search.settle()
    search.recall()
    assert (search.runs, search.share) == (6, 0.2)
    search.recall()
    assert search.runs == 7


@pytest.mark.parametrize("rival", [*PRUNED, FIRST_CALL], ids=lambda rival: rival.name)
def test_every_search_finds_the_nearest_code_while_it_moves(rival: Rival) -> None:
    x, codebook = draw(Shape(200, 600, 3), CPU)
    work = rival.prepare(x, codebook)
    for _ in range(3):
        indices = work()[0]
        assert wrong_share(indices, x, work.run.codebook) == 0
    moves = not torch.equal(work.run.codebook.sort(0).values, codebook.sort(0).values)
    assert moves == (rival.name in (ALL_CODES, TRAINING))


def test_rivals_search_the_same_codes_in_different_orders() -> None:
    codebook = torch.randn(50, 3)
    orders = [pruned.in_order(codebook, seed) for seed in (1, 2)]
    assert not torch.equal(*orders)
    for codes in orders:
        assert torch.equal(codes.sort(0).values, codebook.sort(0).values)


def test_judging_compares_with_all_codes_and_with_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    x, codebook = draw(Shape(300, 100, 3), CPU)
    assert measure_real.judge(x, codebook)[1:] == (0, 0)
    honest = Search.__call__

    def corrupted(search: Search) -> tuple[torch.Tensor, ...]:
        indices, distance = honest(search)
        if search.mode == "always":
            indices[:3] = (indices[:3] + 1) % 100
        return indices, distance

    monkeypatch.setattr(Search, "__call__", corrupted)
    assert measure_real.judge(x, codebook)[1:] == pytest.approx((0.01, 0.01))


# Data sets


def test_latents_are_stored_and_trained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainings = []
    honest = latents.train
    monkeypatch.setattr(latents, "train", lambda *args: trainings.append(1) or honest(*args))
    made = TINY.load(tmp_path)
    assert [tuple(made[name].shape) for name in ("x", "codebook", "further")] == [(100, 4), (16, 4), (70, 4)]
    assert all(torch.isfinite(tensor).all() for tensor in made.values())
    again = TINY.load(tmp_path)
    assert all(torch.equal(made[name], again[name]) for name in made)
    assert len(trainings) == 1
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-50])
    repeated = TINY.load(tmp_path)
    assert all(torch.equal(made[name], repeated[name]) for name in made)
    replace(TINY, steps=2).load(tmp_path)  # the same file, of another training
    assert len(trainings) == 3
    assert not list(tmp_path.glob("*.tmp"))


def test_unused_codes_are_replaced_within_a_brief_training() -> None:
    """A code without use is replaced after t steps with DECAYᵗ < 0.1, and every training has more."""
    steps = math.log(0.1) / math.log(latents.DECAY)
    assert all(steps < made.steps for made in real.TRAININGS)
    model = torch.nn.Sequential(latents.build(real.VQ_VARIANT, dim=4, codebook_size=8, seed=0))
    optimizer = torch.optim.SGD(model.parameters())
    assert latents.BriefAids(replace="dead").replacement(model, optimizer).decay == latents.DECAY
    assert latents.BriefAids().replacement(model, optimizer) is None


def test_patches_are_principal_components() -> None:
    """Of vectors and codes together: uncorrelated, the largest variance first. Float32 leaves a relative error of
    about 10⁻⁵ of the largest variance."""
    x, codebook = real.draw_patches(Shape(300, 200, 12))
    both = torch.cat([x, codebook]).double()
    covariance = both.T @ both / len(both)
    variances = covariance.diagonal()
    assert (variances.diff() <= 0).all()
    assert float((covariance - variances.diag()).abs().max()) < 1e-4 * float(variances[0])
    assert x.shape == (300, 12)
    assert codebook.shape == (200, 12)


def test_fewer_vectors_keep_the_codebook(tmp_path: Path) -> None:
    whole = real.normal(Shape(30, 20, 3))
    few = real.fewer(whole, 7)
    assert few.shape == Shape(7, 20, 3)
    for a, b in zip(few.load(tmp_path), whole.load(tmp_path), strict=True):
        assert torch.equal(a, b[: len(a)])


def test_a_larger_codebook_contains_the_smaller_ones() -> None:
    stored = {"x": torch.randn(5, 2), "codebook": torch.randn(10, 2), "further": torch.randn(6, 2)}
    sizes = [measure_real.of_size(stored, size)[1] for size in (4, 10, 16)]
    assert [len(codes) for codes in sizes] == [4, 10, 16]
    assert torch.equal(sizes[1][:4], sizes[0])
    assert torch.equal(sizes[2][:10], sizes[1])
    assert torch.equal(sizes[1].sort(0).values, stored["codebook"].sort(0).values)
    assert torch.equal(sizes[2][10:], stored["further"])


# Requirements


def verdict(rows: list[RealRow], start: str) -> Bar:
    (bar,) = [bar for bar in real_bars.real_bars(rows) if bar.requirement.startswith(start)]
    return bar


def test_bars_on_real_data_are_judged_by_the_worst_data_set() -> None:
    vq = row(VQ_LATENTS, Shape(9, 8192, 4), product=10, **ours(2, 3, 9))
    small = row(VQ_LATENTS, Shape(9, 1024, 4), product=1, **ours(2, 3, 9))  # below K 8192
    simvq = row(SIMVQ_LATENTS, Shape(9, 8192, 4), product=10, **ours(5, 8, 9))
    wide = row(NORMAL, Shape(9, 8192, 32), product=1, **ours(9.3, 9.9, 9))
    rows = [vq, small, simvq, wide]
    evaluation = verdict(rows, "VQ latents, K ≥ 8192, evaluation")
    assert (evaluation.met, evaluation.number, evaluation.where) == (True, 5, "VQ latents 9x8192x4")
    training = verdict(rows, "VQ latents, K ≥ 8192, training")
    assert (training.met, training.number) == (True, pytest.approx(10 / 3))
    assert verdict(rows, "SimVQ latents").met is False  # 1.25 in training
    assert verdict(rows, "N(0, 1), D ≤ 8").met is None
    most = verdict(rows, "real data: at most 1.05")
    assert (most.met, most.number, most.where) == (False, pytest.approx(1.1), f"N(0, 1) 9x8192x32, {TRAINING}")
    assert verdict(rows, "real data: no wrong").met is None
    vq.wrong, vq.different, vq.memory = 0.0, 1 / 8, {FIRST: 2 * vq.allowance}
    assert verdict(rows, "real data: no wrong").number == 12.5
    assert verdict(rows, "real data: peak memory").met is False


@pytest.mark.parametrize(("slowdown", "met"), [(2.0, True), (2.2, False)])
def test_ours_may_slow_down_as_much_as_faiss(slowdown: float, met: bool) -> None:
    rows = [Slowdown(TRAINING, 1, slowdown), Slowdown(ALL_CODES, 1, 1.5), Slowdown(FAISS, 10, 20)]
    judged = real_bars.load_bar(rows)
    assert (judged.met, judged.number, judged.where) == (met, slowdown / 2, TRAINING)
    assert real_bars.load_bar(rows[:2]).met is None


# Busy processes


def test_busy_processes_end_with_the_block_and_with_an_error() -> None:
    with load.busy_processes(2) as processes:
        assert [process.poll() for process in processes] == [None, None]
    with pytest.raises(KeyboardInterrupt), load.busy_processes(1) as more:
        raise KeyboardInterrupt
    assert all(process.poll() is not None for process in (*processes, *more))


def test_steady_runs_leave_out_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    durations = iter([900.0, 100.0, 300.0])
    monkeypatch.setattr(load, "milliseconds", lambda work, device: next(durations))
    assert load.steady_milliseconds(tuple, 1.2) == 200
    durations = iter([900.0])
    assert load.steady_milliseconds(tuple, 0.5) == 900


# Tables and the command


def test_build_and_refit_are_what_a_search_takes_beyond_evaluation() -> None:
    fast = row(VQ_LATENTS, Shape(9, 8192, 4), 0.02, product=10, **ours(2, 2.5, 9), **{FIRST: 7})
    slow = replace(fast, share=1.0)
    noisy = row(VQ_LATENTS, Shape(9, 8192, 4), 0.02, product=10, **ours(2, 1.9, 9), **{FIRST: 7})
    sheet = real_report.search_sheet([fast, slow, noisy])
    columns = [dict(zip(sheet.headings, cells, strict=True)) for cells in sheet.rows]
    assert (columns[0]["build"], columns[0]["refit"], columns[0]["share"]) == ("5.00", "0.500", "2")
    assert (columns[1]["build"], columns[1]["refit"], columns[1]["share"]) == ("-", "-", "100")
    assert (columns[2]["build"], columns[2]["refit"]) == ("5.00", "≈ 0")
    assert columns[0][EVALUATION] == "2.00\n5.00x"


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts of the command on small data."""
    data = real.latents(VQ_LATENTS, TINY)
    monkeypatch.setattr(timing, "MOST", 3)
    monkeypatch.setattr(real, "TRAININGS", (TINY,))
    monkeypatch.setattr(real, "DATA", (data, real.normal(Shape(64, 32, 3))))
    monkeypatch.setattr(real, "STEPPED", (data,))
    monkeypatch.setattr(real, "LOADED", real.fewer(data, 50))
    monkeypatch.setattr(real, "GROWING", TINY)
    monkeypatch.setattr(measure_real, "SIZES", (8, 40))
    monkeypatch.setattr(load, "TURN_S", 0.005)
    monkeypatch.setattr(load, "ROUNDS", 1)
    monkeypatch.setattr(pruned, "MOST_SETTLING", 2)


@pytest.mark.usefixtures("tiny")
def test_the_command_measures_real_data_and_load(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["kernels", "--only", "real", "--only", "load", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "kernels.json, kernels.md, pruning.png" in " ".join(result.output.split())
    record = json.loads((tmp_path / "kernels.json").read_text())
    assert record["settings"]["parts"] == ["real", "load"]
    assert record["search"] == record["training_step"] == []
    assert [(each["data"], each["wrong"], each["different"]) for each in record["real_data"]] == [
        (VQ_LATENTS, 0, 0),
        (NORMAL, 0, 0),
    ]
    for each in record["real_data"]:
        assert {ALL_CODES, EVALUATION, TRAINING, FIRST, each["gemm"]} <= each["times_ms"].keys()
        assert not each["failures"]
        assert 0 <= each["share"] <= 1
    (step,) = record["real_training_step"]
    assert {TRAINING, *(rival.name for rival in STEPS if not rival.package)} <= step["times_ms"].keys()
    assert [point["shape"]["k"] for point in record["pruning"]] == [8, 40]
    assert {TRAINING, ALL_CODES} <= {each["rival"] for each in record["load"]}
    text = (tmp_path / "kernels.md").read_text()
    for title in (real_report.SEARCH, real_report.STEP, real_report.LOAD):
        assert f"**{title}**" in text
    assert "![Time against the number of codes, on latents](pruning.png)" in text
    with Image.open(tmp_path / "pruning.png") as picture:
        picture.load()
        assert min(picture.size) > 400
    if FAISS in record["real_data"][0]["times_ms"]:
        assert real_summary(record).count("\n") == 3


def test_a_part_that_does_not_exist_is_named() -> None:
    result = CliRunner().invoke(app, ["kernels", "--only", "nothing"])
    assert result.exit_code == 2
    assert "--only: got 'nothing'; on cpu expected random or real or load" in " ".join(result.output.split())


def test_the_readme_table_has_the_product_and_ours() -> None:
    each = row(VQ_LATENTS, Shape(9, 8192, 4), 0.0213, product=10, faiss=12, **ours(2, 2.5, 9)).record()
    lines = real_summary({"real_data": [each]}).splitlines()
    assert lines[2] == ("| VQ latents | 9 × 8192 × 4 | 2.13 % | 10 | 12 | 9 (1.11×) | 2 (5.00×) | 2.5 (4.00×) |")
