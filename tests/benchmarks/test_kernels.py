"""The benchmark of the kernels: its pieces on small tensors, and the command end to end on one small shape."""

import json
import statistics
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from benchmarks.cli.app import app
from benchmarks.kernels import bars, exactness, floors, growth, report, rivals, run, timing
from benchmarks.kernels.cells import milliseconds
from benchmarks.kernels.exactness import wrong_share
from benchmarks.kernels.gemm import GEMMS
from benchmarks.kernels.memory import allowance, peak_memory
from benchmarks.kernels.results import Results, Row, Wrong
from benchmarks.kernels.rivals import OURS, PEER, SEARCHES, Rival, usable
from benchmarks.kernels.shapes import Shape, draw
from benchmarks.kernels.steps import EMA, PEER_EMA, PEER_VQ, STEPS, VQ
from benchmarks.kernels.summary import real_summary
from benchmarks.kernels.summary import summary as table_of_times
from benchmarks.kernels.timing import Times, interleave, summary

CPU = torch.device("cpu")
SMALL = Shape(60, 30, 4)
USABLE = usable((*SEARCHES, *STEPS), CPU)[0]


def one(name: str) -> Rival:
    (rival,) = [rival for rival in (*SEARCHES, *STEPS) if rival.name == name]
    return rival


def constant(milliseconds: float) -> Times:
    return Times(milliseconds, milliseconds, milliseconds, milliseconds, milliseconds, 3)


def row(shape: Shape = SMALL, **milliseconds: float) -> Row:
    times = {name: constant(value) for name, value in milliseconds.items()}
    return Row(shape, [], allowance(shape), times, {})


@pytest.mark.parametrize("rival", USABLE, ids=lambda rival: rival.name)
def test_every_rival_finds_the_nearest_code(rival: Rival) -> None:
    x, codebook = draw(Shape(200, 50, 4), CPU)
    indices = rival.prepare(x, codebook)()[0]
    assert indices.shape == (200,)
    assert wrong_share(indices, x, codebook) == 0


@pytest.mark.parametrize(("ours", "peer"), [(VQ, PEER_VQ), (EMA, PEER_EMA)])
def test_both_training_steps_do_the_same_work(ours: str, peer: str) -> None:
    """Indices and codes alike; loss and gradients up to float32's rounding of sums of 200 · 4 terms.

    One term of the peer's loss moves vectors and codes where ours has a term for each.
    """
    pytest.importorskip("vector_quantize_pytorch")
    tensors = draw(Shape(200, 50, 4), CPU)
    # Twice: the second step shows what the first made of the codebook's averages.
    works = [one(name).prepare(*tensors) for name in (ours, peer)]
    for _ in range(2):
        mine, theirs = (work() for work in works)
        assert len(mine) == len(theirs)
        assert torch.equal(mine[0], theirs[0])
        quantized, loss, *gradients = theirs[1:]
        terms = 2 if ours == VQ else 1
        for a, b in zip(mine[1:], [quantized, terms * loss, *gradients], strict=True):
            # n ulp of the largest term bound a sum of n terms in any order.
            bound = 800 * 2**-24 * max(1, float(a.abs().max()))
            assert float((a - b.reshape(a.shape)).abs().max()) <= bound


def test_the_bare_product_is_left_out_of_nothing() -> None:
    """Tiles cover what does not divide into them."""
    x, codebook = draw(Shape(2050, 1030, 3), CPU)
    for gemm in GEMMS:
        gemm.prepare(x, codebook)()
    assert Shape(2050, 1030, 3).flops == 2 * 2050 * 1030 * 3


def test_a_rival_that_is_not_installed_is_left_out_with_a_sentence() -> None:
    absent = Rival("absent", rivals.prepare_cdist, package="no_such_package")
    elsewhere = Rival("elsewhere", rivals.prepare_cdist, devices=("cuda",))
    found, sentences = usable([one(OURS), absent, elsewhere], CPU)
    assert [rival.name for rival in found] == [OURS]
    assert sentences == ["absent is left out: the package no_such_package is not installed."]


def test_a_rival_that_fails_is_reported_and_the_others_are_timed() -> None:
    def refuse(x: torch.Tensor, codebook: torch.Tensor) -> rivals.Work:
        raise ValueError("no such thing\nand more")

    hungry = Rival("hungry", rivals.prepare_cdist, matrices=2**60)
    times, failures = interleave([one(OURS), Rival("refuses", refuse), hungry], *draw(SMALL, CPU))
    assert times.keys() == {OURS}
    assert failures == {"refuses": "no such thing", "hungry": "not enough memory"}


def test_a_slow_rival_runs_three_times_and_a_quick_one_more(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = {"slow": 0, "quick": 0}

    def counting(name: str) -> Rival:
        def work() -> tuple[torch.Tensor, ...]:
            clock[name] += 1
            return ()

        work.__name__ = name
        return Rival(name, lambda x, codebook: work)

    seconds = {"slow": 5000.0, "quick": 1.0}
    monkeypatch.setattr(timing, "milliseconds", lambda work, device: (work(), seconds[work.__name__])[1])
    times, _ = interleave([counting("slow"), counting("quick")], *draw(SMALL, CPU))
    assert times["slow"].runs == timing.LEAST
    assert clock["slow"] == timing.LEAST + 1  # and the first, which loads libraries
    assert times["quick"].runs == timing.MOST
    assert clock["quick"] == 2 * timing.MOST  # each but the first is preceded by one that is not timed


def test_summary_and_overlap() -> None:
    times = summary([4.0, 1.0, 2.0, 3.0, 100.0])
    assert times == Times(median=3, least=1, lower=2, upper=4, most=100, runs=5)
    assert times.overlaps(constant(4))
    assert not times.overlaps(constant(4.5))


@pytest.mark.parametrize("data", exactness.DATA, ids=lambda data: data.name)
def test_ours_is_right_on_all_data(data: exactness.Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exactness, "VECTORS", 64)
    x, codebook = data.tensors(CPU)
    indices = one(OURS).prepare(x, codebook)()[0]
    assert x.shape == (64, data.d)
    assert wrong_share(indices, x, codebook) == 0


def test_wrong_indices_are_counted_and_ties_are_not() -> None:
    codebook = torch.tensor([[0.0], [1.0], [1.0], [3.0]])
    x = torch.tensor([[0.0], [1.0], [1.0], [0.5], [0.5], [3.0], [3.0], [3.0]])
    # The seventh is too far away; the last two are no codes at all.
    indices = torch.tensor([0, 1, 2, 0, 2, 3, 4, -1])
    assert wrong_share(indices, x, codebook) == 2 / 8
    assert wrong_share(torch.tensor([1, 1, 2, 0, 2, 3, 3, 3]), x, codebook) == 1 / 8


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_memory_of_a_process_of_its_own() -> None:
    shape = Shape(2048, 4096, 4)
    matrix = 4 * shape.n * shape.k
    # Some pages of it may have been resident before.
    assert 0.99 * matrix <= peak_memory(one(rivals.CDIST), shape, CPU) <= 2 * matrix
    assert peak_memory(one(OURS), shape, CPU) < matrix / 2
    assert peak_memory(Rival("hungry", rivals.prepare_cdist, matrices=2**60), shape, CPU) is None


def test_flash_kmeans_is_called_as_its_release_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Earlier releases ask for the vectors' square norms, later ones do not."""
    x, codebook = draw(SMALL, CPU)
    asked: dict[str, torch.Tensor] = {}

    def earlier(x: torch.Tensor, centroids: torch.Tensor, x_sq: torch.Tensor) -> torch.Tensor:
        asked["x_sq"] = x_sq
        return torch.cdist(x, centroids).argmin(-1).int()

    def later(x: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
        return torch.cdist(x, centroids).argmin(-1).int()

    module = ModuleType("flash_kmeans.assign_euclid_triton")
    monkeypatch.setitem(sys.modules, "flash_kmeans", ModuleType("flash_kmeans"))
    monkeypatch.setitem(sys.modules, "flash_kmeans.assign_euclid_triton", module)
    for function in (earlier, later):
        module.euclid_assign_triton = function  # type: ignore[attr-defined]
        assert wrong_share(one(rivals.FLASH).prepare(x, codebook)()[0], x, codebook) == 0
    assert torch.equal(asked["x_sq"], x[None].square().sum(-1))


def test_floors_grow_with_the_work() -> None:
    """16384 · 16384 · 64: 0.208 ms of tf32x3. At D = 4 the product is padded to 16 channels."""
    assert floors.floors_ms(Shape(16384, 16384, 64))["tf32x3"] == pytest.approx(0.208, rel=0.01)
    assert floors.floors_ms(Shape(65536, 1024, 4)) == floors.floors_ms(Shape(65536, 1024, 16))
    many = floors.floors_ms(Shape(262144, 262144, 16))["bf16"]
    assert many == pytest.approx(1000 * 2**36 * floors.INSTRUCTIONS_PER_PAIR / floors.ISSUE_RATE)


def verdicts(search: list[Row], step: list[Row], wrong: list[Wrong]) -> dict[str, bars.Bar]:
    return {bar.requirement: bar for bar in bars.judge(search, step, wrong, "cpu")}


def verdict(found: dict[str, bars.Bar], start: str) -> bars.Bar:
    (bar,) = [bar for requirement, bar in found.items() if requirement.startswith(start)]
    return bar


def test_bars_are_judged_by_the_worst_shape() -> None:
    few = [row(Shape(9, 9, 4), **{OURS: 2, rivals.FAISS: 2, PEER: 90}), row(Shape(8, 9, 4), **{OURS: 2, PEER: 90})]
    wide = row(Shape(9, 9, 32), **{OURS: 2, rivals.FAISS: 2.9, "gemm": 1.5})
    wide.gemm, wide.memory = "gemm", {OURS: allowance(wide.shape) + 1}
    steps = [row(**{VQ: 1, PEER_VQ: 5, EMA: 1, PEER_EMA: 4.9})]
    wrong = [Wrong("easy", 9, 4, {OURS: 0.0}, {}), Wrong("hard", 9, 4, {OURS: 1 / 4096}, {})]
    found = verdicts([*few, wide], steps, wrong)
    assert verdict(found, "search, D < 16") == bars.Bar(
        verdict(found, "search, D < 16").requirement, True, 1, "x", "9x9x4"
    )
    assert verdict(found, "search, D ≥ 16").met is False
    assert verdict(found, "search, D ≥ 16").number == pytest.approx(1.45)
    assert verdict(found, "search, D ≥ 32").met is False
    assert verdict(found, "training step, VQ").met is True
    assert verdict(found, "training step, EMA").met is False
    assert verdict(found, "peak memory of a search").met is False
    assert verdict(found, "peak memory of a training step").met is None
    assert verdict(found, "no wrong index").where == "hard"
    assert verdict(found, "this library runs").met is True


def test_a_failure_of_ours_is_a_bar_not_met() -> None:
    failed = Row(SMALL, [], allowance(SMALL), {}, {OURS: "out of memory"})
    found = verdicts([failed], [], [])
    assert verdict(found, "this library runs").met is False
    assert verdict(found, "search, D < 16").met is None


def test_on_a_gpu_a_search_is_judged_by_its_floors_and_by_cdist() -> None:
    known = row(**{OURS: 3.0, rivals.OURS_MEDIUM: 0.5, rivals.CDIST: 12.0})
    known.floors = {"tf32x3": 1.0, "tf32": 0.3, "bf16": 0.25}
    unknown = row(**{OURS: 9.0, rivals.CDIST: 90.0})
    judged = bars.judge([known, unknown], [row(**{VQ: 1, PEER_VQ: 5})], [], "cuda")
    found = {bar.requirement: bar for bar in judged}
    exact, high, medium = (verdict(found, f"search, {kind}:") for kind in ("tf32x3", "tf32", "bf16"))
    assert (exact.met, exact.number) == (False, pytest.approx(1 / 3))
    assert high.met is None  # not measured
    assert medium.met is True
    assert verdict(found, "search: at least 5 times").number == pytest.approx(4)
    assert verdict(found, "training step, VQ").met is True
    assert not any("D < 16" in requirement or "bare" in requirement for requirement in found)


@pytest.mark.parametrize(
    ("accelerator", "known"),
    [("NVIDIA H100 80GB HBM3", True), ("NVIDIA H200", True), ("NVIDIA H100 PCIe", False), ("NVIDIA A100", False)],
)
def test_floors_are_those_of_two_accelerators(accelerator: str, known: bool) -> None:
    assert floors.has_floors(accelerator) is known


def test_a_rival_that_would_take_minutes_is_left_out_on_a_gpu() -> None:
    slow = Rival("slow", rivals.prepare_cdist, pairs=2**30)
    shape, larger = Shape(2**15, 2**15, 4), Shape(2**15, 2**15 + 1, 4)
    assert timing.is_brief(slow, shape, torch.device("cuda"))
    assert not timing.is_brief(slow, larger, torch.device("cuda"))
    assert timing.is_brief(slow, larger, CPU)


def test_floors_are_columns_of_the_table() -> None:
    measured = row(**{OURS: 2.0})
    measured.rivals, measured.floors = [one(OURS)], {"bf16": 0.25}
    (sheet,) = report.sheets(Results(search=[measured]))
    assert sheet.headings[-1] == "floor, bf16"
    assert sheet.rows[0][-1] == "0.250"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command on little: few runs, two data sets, two shapes of growth."""
    monkeypatch.setattr(timing, "MOST", 3)
    monkeypatch.setattr(exactness, "VECTORS", 64)
    monkeypatch.setattr(run, "DATA", (exactness.DATA[1], exactness.DATA[2]))
    monkeypatch.setattr(growth, "BASE", Shape(64, 32, 4))
    monkeypatch.setattr(growth, "SIZES", {"n": (64, 128), "k": (32,), "d": (4,)})
    monkeypatch.setattr(run, "PARTS", {"random": run.random_tasks})


def command(*options: str) -> "CliRunner.Result":  # type: ignore[name-defined]
    return CliRunner().invoke(app, ["kernels", *options])


@pytest.mark.usefixtures("quick")
def test_the_command_writes_what_it_says(tmp_path: Path) -> None:
    result = command("--shapes", "96x40x4", "--out", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert "kernels.json, kernels.md, growth.png" in " ".join(result.output.split())
    record = json.loads((tmp_path / "kernels.json").read_text())
    assert record["settings"]["shapes"] == [{"n": 96, "k": 40, "d": 4}]
    assert record["machine"]["threads"] == torch.get_num_threads()
    assert {"python", "torch", "quantizers"} <= record["versions"].keys()
    assert {"revision", "date"} <= record.keys()
    assert record["implementation"] in ("compiled", "blocked")
    (search,), (step,) = record["search"], record["training_step"]
    for measured, names in ((search, SEARCHES), (step, STEPS)):
        assert not measured["failures"]
        assert {rival.name for rival in usable(names, CPU)[0]} <= measured["times_ms"].keys()
        for name, numbers in measured["ratios"].items():
            against = one(name).against if not name.startswith("GEMM") else OURS
            times = measured["times_ms"]
            assert numbers["ratio"] == times[name]["median"] / times[against]["median"]
    bare = {rival.name: search["times_ms"][rival.name]["median"] for rival in GEMMS}
    assert search["gemm"] == min(bare, key=bare.get)
    assert search["gemm_gflops_per_s"] == pytest.approx(2 * 96 * 40 * 4 / min(bare.values()) / 1e6)
    assert [each["shares"][OURS] for each in record["wrong_indices"]] == [0, 0]
    assert len(record["growth"]) == 2
    assert {bar["met"] for bar in record["bars"]} <= {True, False, None}
    text = (tmp_path / "kernels.md").read_text()
    assert "| 96<br>40<br>4<br>≤ 64 MiB |" in text
    assert f"{timed(search, OURS)}<br>" in text
    with Image.open(tmp_path / "growth.png") as picture:
        picture.load()
        assert min(picture.size) > 400
    assert not list(tmp_path.glob("*.tmp"))


def timed(search: dict[str, dict[str, dict[str, float]]], name: str) -> str:
    return milliseconds(search["times_ms"][name]["median"])


@pytest.mark.usefixtures("quick")
def test_an_interrupted_run_reports_what_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "measure_memory", interrupted)
    result = command("--shapes", "96x40x4", "--out", str(tmp_path))
    assert result.exit_code == 130
    assert "Interrupted: the remaining measurements are missing." in result.output
    record = json.loads((tmp_path / "kernels.json").read_text())
    assert record["interrupted"] is True
    assert len(record["search"]) == 1
    assert record["wrong_indices"] == []
    assert not (tmp_path / "growth.png").exists()
    monkeypatch.setattr(run, "time_rivals", interrupted)
    again = command("--shapes", "96x40x4", "--out", str(tmp_path / "other"))
    assert again.exit_code == 130
    assert "before anything was measured" in again.output
    assert not (tmp_path / "other" / "kernels.json").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--device", "toaster"], "'toaster' cannot be used"),
        (["--device", "meta"], "'meta' cannot be used"),
        (["--shapes", "8192x512"], "got '8192x512'; expected N, K and D"),
        (["--shapes", "0x1x1"], "got '0x1x1'; expected N, K and D"),
        (["--shapes", "9999999999x1x1"], "expected N, K and D"),
        (["--out", __file__], "cannot write"),
    ],
)
def test_bad_input_is_a_sentence(options: list[str], sentence: str) -> None:
    result = command(*options)
    assert result.exit_code == 2
    assert sentence in result.output
    assert "Traceback" not in result.output


def test_times_are_medians() -> None:
    times, _ = interleave([one(OURS)], *draw(SMALL, CPU))
    assert times[OURS].least <= times[OURS].median <= times[OURS].most
    assert statistics.median([times[OURS].lower, times[OURS].median, times[OURS].upper]) == times[OURS].median


def test_the_page_on_speed_shows_what_is_committed() -> None:
    root = Path(__file__).parents[2]
    record = json.loads((root / "benchmarks" / "results" / "kernels-cpu" / "kernels.json").read_text())
    page = (root / "docs" / "results" / "speed.md").read_text()
    assert table_of_times(record) in page
    real = json.loads((root / "benchmarks" / "results" / "kernels-real-cpu" / "kernels.json").read_text())
    assert real_summary(real) in page
    assert not record["interrupted"]
    assert record["implementation"] == "compiled"
