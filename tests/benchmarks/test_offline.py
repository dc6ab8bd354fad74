"""The benchmark of codebooks that are fitted offline: its data, its judgements, and the command on tiny cells."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from benchmarks.cli.app import app
from benchmarks.errors import InputError
from benchmarks.machine import ROOT
from benchmarks.offline import bars, cells, child, features, patches, run, stored, text, vectors
from benchmarks.offline.cells import GROUPS, KMEANS, PRODUCT, RESIDUAL, STREAM, Cell
from benchmarks.offline.contenders import BY_NAME, CONTENDERS, Contender
from benchmarks.offline.processes import inertia
from benchmarks.offline.run import Benchmark, Results, Settings
from benchmarks.offline.stored import Run
from benchmarks.offline.summary import SAME, best_rival, lines, reach
from benchmarks.offline.tasks import Fitted, Task

CELL = Cell(KMEANS, "patches", 300, 64, 4)
OURS, FAISS, SKLEARN = "ours", "faiss", "scikit-learn"
positive = st.floats(0.01, 100)


# The vectors


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A training of one step, and a short text."""
    hashed = text._hashed()[:50_000]
    monkeypatch.setattr(text, "_hashed", lambda: hashed)
    monkeypatch.setattr(text, "SAMPLE", 1024)
    monkeypatch.setattr(features, "STEPS", 1)
    features._encoder.cache_clear()
    yield
    features._encoder.cache_clear()


def test_every_source_is_known() -> None:
    assert tuple(vectors.BLOCKS) == cells.SOURCES


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("source", cells.SOURCES)
@pytest.mark.parametrize("dim", [64, 256, 768])
def test_vectors_are_finite_different_and_the_same_again(source: str, dim: int) -> None:
    count = 2 * patches.BLOCK + 5 if (source, dim) == ("patches", 64) else 300
    first, again = (np.concatenate(list(vectors.BLOCKS[source](count, dim))) for _ in range(2))
    assert first.shape == (count, dim)
    assert first.dtype == np.float32
    assert np.isfinite(first).all()
    assert len(np.unique(first, axis=0)) > 0.9 * count  # photographs contain some equal patches
    np.testing.assert_array_equal(first, again)


def test_patches_lie_in_the_range_of_pixels() -> None:
    (block,) = patches.blocks(500, 64)
    assert block.min() >= -1
    assert block.max() <= 1
    assert block.max() - block.min() > 1


@pytest.mark.usefixtures("brief")
def test_passages_have_at_most_unit_norm_and_all_of_it_with_every_bucket() -> None:
    (few,) = text.blocks(100, 64)
    (every,) = text.blocks(100, text.BUCKETS)
    assert (np.linalg.norm(few, axis=1) <= 1 + 1e-5).all()
    # A rotation in float32: BUCKETS products, each rounded.
    np.testing.assert_allclose(np.linalg.norm(every, axis=1), 1, atol=text.BUCKETS * 2**-24)
    np.testing.assert_allclose(every[:, :64], few, atol=text.BUCKETS * 2**-24)


def test_neighbourhoods_hold_every_feature_once() -> None:
    maps = torch.arange(2 * 3 * 4 * 6.0).reshape(2, 3, 4, 6)
    found = features.neighbourhoods(maps, (2, 3))
    assert found.shape == (2 * 2 * 2, 3 * 2 * 3)
    assert found.flatten().sort().values.equal(maps.flatten())
    assert found[0].equal(maps[0, :, :2, :3].flatten())


@pytest.mark.parametrize(("source", "dim"), [("patches", 65), ("features", 65), ("text", text.BUCKETS + 1)])
def test_a_dimension_without_vectors_is_refused(source: str, dim: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=str(dim)):
        vectors.written(tmp_path, source, 10, dim)
    assert not list(tmp_path.iterdir())


def test_vectors_are_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = [np.ones((2, 3), np.float32), np.zeros((1, 3), np.float32)]
    calls: list[tuple[int, int]] = []
    monkeypatch.setitem(vectors.BLOCKS, "patches", lambda n, d: iter(calls.append((n, d)) or blocks))
    path = vectors.written(tmp_path, "patches", 3, 3)
    np.testing.assert_array_equal(np.load(path), np.concatenate(blocks))
    assert vectors.written(tmp_path, "patches", 3, 3) == path
    assert calls == [(3, 3)]
    with pytest.raises(RuntimeError, match="3 vectors, expected 4"):
        vectors.written(tmp_path, "patches", 4, 3)
    assert list(tmp_path.iterdir()) == [path]


@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 5))
def test_seeds_are_distinct_vectors(
    tmp_path_factory: pytest.TempPathFactory, n: int, size: int, seed: int
) -> None:
    values = np.random.default_rng(seed).integers(0, 3, (n, 2)).astype(np.float32)
    path = tmp_path_factory.getbasetemp() / "few.npy"
    np.save(path, values)
    found = values[vectors.distinct_positions(path, size, seed)]
    assert len(np.unique(found, axis=0)) == len(found)
    if n <= 10 * size:  # all vectors were drawn
        assert len(found) == min(size, len(np.unique(values, axis=0)))


# Cells


@given(
    st.sampled_from([KMEANS, STREAM]),
    st.sampled_from(cells.SOURCES),
    st.integers(1, 999),
    st.integers(1, 999),
    st.integers(1, 999),
)
def test_a_cell_is_read(kind: str, source: str, n: int, d: int, k: int) -> None:
    word = f"{kind}:{source}:{n}x{d}x{k}"
    if k > n:
        with pytest.raises(InputError, match="no more codes than vectors"):
            cells.parse(word)
    else:
        assert cells.parse(word) == Cell(kind, source, n, d, k)


@pytest.mark.parametrize(
    "word",
    ["", "1e9", "kmeans", "kmeans:text:10x2", "kmeans:noise:10x2x2", "residual:text:10x2x2", "kmeans:text:10x0x2",
     "residual:text:100x8x2x9", "product:text:100x8x3x8", "kmeans:text:10x2x2x2"],
)  # fmt: skip
def test_other_words_are_refused(word: str) -> None:
    with pytest.raises(InputError, match="--cells: got"):
        cells.parse(word)


def test_groups_and_cells_are_chosen_once() -> None:
    assert cells.choose([]) == tuple(cell for group in GROUPS.values() for cell in group)
    assert cells.choose(["1e7", "residual:text:100x8x2x16", "1e7"]) == (
        *GROUPS["1e7"],
        Cell(RESIDUAL, "text", 100, 8, 16, codebooks=2),
    )


def test_the_grid_is_complete() -> None:
    """Every D meets every K, and every source meets each of both."""
    for key in ("d", "k"):
        pairs = {(cell.source, getattr(cell, key)) for cell in cells.SMALL}
        assert len(pairs) == 9
    assert len({(cell.d, cell.k) for cell in cells.SMALL}) == 9


@given(st.integers(1, 10**7), st.integers(1, 768), st.integers(1, 4096))
def test_iterations_stay_within_their_limits(n: int, d: int, k: int) -> None:
    cell = Cell(KMEANS, "text", n, d, k)
    for iterations, most, work in (
        (cell.iterations, cells.MOST_ITERATIONS, cells.MULTIPLICATIONS),
        (cell.iterations_from_seeds, cells.MOST_FROM_SEEDS, cells.FEWER_MULTIPLICATIONS),
    ):
        assert cells.LEAST <= iterations <= most
        assert iterations == cells.LEAST or iterations * cell.per_iteration <= work
        assert iterations == most or (iterations + 1) * cell.per_iteration > work


# Contenders


def test_names_are_different_also_as_files() -> None:
    assert len(BY_NAME) == len(CONTENDERS)
    assert len({stored._path(Path(), CELL, name, 0) for name in BY_NAME}) == len(CONTENDERS)


def test_the_processes_of_others_import_neither_torch_nor_each_other() -> None:
    modules = ("child", "faiss_fits", "sklearn_fits")
    imports = ", ".join(f"benchmarks.offline.{module}" for module in modules)
    code = f"import sys, {imports}; print({{'torch', 'faiss', 'sklearn', 'quantizers'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_elkan_is_left_out_where_its_bounds_are_large() -> None:
    elkan = BY_NAME["scikit-learn elkan"]
    assert elkan.fits(CELL)
    assert not elkan.fits(replace(CELL, n=10**6, k=1024))
    assert not elkan.fits(replace(CELL, kind=STREAM))


TINY = {
    KMEANS: CELL,
    STREAM: replace(CELL, kind=STREAM),
    RESIDUAL: Cell(RESIDUAL, "patches", 300, 64, 4, codebooks=2),
    PRODUCT: Cell(PRODUCT, "patches", 300, 64, 4, codebooks=2),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("contender", CONTENDERS, ids=lambda contender: contender.name)
def test_every_contender_explains_some_of_the_variance(contender: Contender, tmp_path: Path) -> None:
    (x,) = patches.blocks(300, 64)
    np.save(tmp_path / "x.npy", x)
    x = np.load(tmp_path / "x.npy", mmap_mode="r" if contender.kind == STREAM else None)
    seeds = np.array(x[:4]) if contender.from_seeds else None
    task = Task(TINY[contender.kind], str(tmp_path / "x.npy"), 3, seeds, seed=0, threads=1)
    fitted = contender.load()(x, task)
    if contender.kind in (RESIDUAL, PRODUCT):
        assert fitted.codes is None
        error = child.distortion(x, fitted)
    else:
        assert fitted.codes is not None
        assert fitted.codes.shape == (4, 64)
        error = inertia(x, fitted.codes)
    variance = float(np.square(x - x.mean(0, dtype=np.float64)).sum(1).mean())
    assert error < 0.9 * variance
    assert fitted.instructions
    for seconds, during in fitted.inertias:
        assert seconds > 0
        assert during >= error * (1 - 1e-4)  # k-means does not get worse; sums of float32 round


def test_the_same_seeds_lead_to_the_same_inertia(tmp_path: Path) -> None:
    (x,) = patches.blocks(300, 64)
    task = Task(CELL, "", 3, x[:4].copy(), seed=0, threads=1)
    found = {c.name: c.load()(x, task) for c in CONTENDERS if c.from_seeds and c.package != "sklearn"}
    values = [inertia(x, fitted.codes) for fitted in found.values() if fitted.codes is not None]
    assert max(values) <= (1 + SAME) * min(values)


@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 99))
def test_inertia_is_the_mean_of_the_least_squared_distances(n: int, k: int, seed: int) -> None:
    draws = np.random.default_rng(seed)
    x, codes = (draws.standard_normal((rows, 3)).astype(np.float32) for rows in (n, k))
    squared = np.square(x[:, None].astype(np.float64) - codes).sum(-1)
    np.testing.assert_allclose(inertia(x, codes), squared.min(1).mean(), rtol=1e-6)  # another of two equal codes
    fitted = Fitted(reconstruct=lambda block: codes[:1].repeat(len(block), 0))
    np.testing.assert_allclose(child.distortion(x, fitted), squared[:, 0].mean(), rtol=1e-12)


# Rounds, budget and stored results


class Script:
    """Stands in for processes.measured: counts runs, and returns what it is given."""

    def __init__(self, numbers: dict[str, Any]) -> None:
        self.numbers = numbers
        self.calls: list[tuple[str, int]] = []

    def __call__(self, contender: Contender, task: Task, limit_s: float) -> dict[str, Any]:
        assert limit_s > 0
        assert (task.seeds is None) == (not contender.from_seeds)
        self.calls.append((contender.name, task.seed))
        if "raise" in self.numbers:
            raise KeyboardInterrupt
        return dict(self.numbers)


NUMBERS: dict[str, Any] = {
    "seconds": 1.0, "inertia": 2.0, "peak_bytes": 3, "passes": 4, "inertias": [], "instructions": "AVX2"
}  # fmt: skip


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Script:
    script = Script(NUMBERS)
    monkeypatch.setattr(run, "measured", script)
    return script


def settings(out: Path, **options: Any) -> Settings:
    names = ["faiss", "faiss, same seeds", "scikit-learn"]
    made = Settings((CELL,), out, budget_s=1000, rounds=2, contenders=run.named(names), threads=1)
    return replace(made, **options)


def performed(given: Settings) -> Results:
    results = Results()
    Benchmark(given, results, lambda name: None).run()
    return results


def test_what_was_measured_is_not_measured_again(tmp_path: Path, scripted: Script) -> None:
    results = performed(settings(tmp_path, rounds=1))
    assert len(scripted.calls) == 3
    again = performed(settings(tmp_path, budget_s=0))
    assert len(scripted.calls) == 3
    assert sorted(map(repr, again.runs)) == sorted(map(repr, results.runs))
    performed(settings(tmp_path))  # the second round
    assert len(scripted.calls) == 6
    performed(settings(tmp_path, threads=2, rounds=1))  # other conditions
    performed(settings(tmp_path, fresh=True, rounds=1))
    assert len(scripted.calls) == 12


def test_a_damaged_result_is_measured_again(tmp_path: Path, scripted: Script) -> None:
    performed(settings(tmp_path, rounds=1))
    for path in (tmp_path / "parts").rglob("*.json"):
        path.write_text("{")
    performed(settings(tmp_path, rounds=1))
    assert len(scripted.calls) == 6


def test_a_failure_is_reported_and_tried_again(tmp_path: Path, scripted: Script) -> None:
    scripted.numbers = {"error": "its process ended"}
    results = performed(settings(tmp_path))
    assert [each.error for each in results.runs] == ["its process ended"] * 3  # and no second round
    assert not lines(results.runs)
    scripted.numbers = NUMBERS
    assert not any(each.error for each in performed(settings(tmp_path, rounds=1)).runs)


def test_long_runs_are_not_repeated(tmp_path: Path, scripted: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "LONG_S", 0.0)
    assert len(performed(settings(tmp_path)).runs) == 3


def test_nothing_starts_without_time(tmp_path: Path, scripted: Script) -> None:
    assert not performed(settings(tmp_path, budget_s=0)).runs
    assert not scripted.calls


def test_an_interruption_keeps_what_is_finished(tmp_path: Path, scripted: Script) -> None:
    performed(settings(tmp_path, rounds=1))
    scripted.numbers = {"raise": True}
    results = performed(settings(tmp_path))
    assert results.interrupted
    assert len(results.runs) == 3


# Judgements


def made(
    contender: str, seconds: float, inertia: float, points: tuple[tuple[float, float], ...] = (), **more: Any
) -> Run:
    numbers = NUMBERS | {"seconds": seconds, "inertia": inertia, "inertias": points, "wall": seconds} | more
    return Run(CELL, contender, 0, numbers)


@given(st.lists(st.tuples(positive, positive), max_size=5), positive, positive, positive, positive)
def test_ours_leads_where_a_pass_is_as_good_and_as_early(
    points: list[tuple[float, float]], seconds: float, inertia: float, end: float, last: float
) -> None:
    found = lines([made(OURS, end, last, tuple(points)), made(FAISS, seconds, inertia)])
    rival = best_rival(found, CELL)
    assert rival is not None
    reached = reach(found, rival)
    assert reached is not None
    early = [when for when, what in [*points, (end, last)] if what <= inertia]
    assert reached.seconds == min(early, default=None)
    assert (reached.lead >= 1) == any(when <= seconds for when in early)
    (verdict,) = [each for each in bars.judge(found, []) if "as called" in each.requirement]
    assert verdict.met == (reached.lead >= 1)


@given(
    st.lists(
        st.tuples(st.sampled_from([FAISS, SKLEARN, OURS, "faiss, same seeds"]), positive, positive), min_size=1
    )
)
def test_the_best_rival_is_the_fastest_of_the_good(given: list[tuple[str, float, float]]) -> None:
    found = lines([made(*each) for each in {each[0]: each for each in given}.values()])
    others = [line for line in found if line.contender.name in (FAISS, SKLEARN)]
    best = best_rival(found, CELL)
    if best is None:
        assert not others
        return
    assert best in others
    assert all(best.inertia <= (1 + SAME) * line.inertia for line in others)
    assert all(best.seconds <= line.seconds for line in others if line.inertia <= best.inertia)


def test_a_line_has_the_median_of_its_rounds_and_the_largest_memory() -> None:
    runs = [made(FAISS, seconds, 2 * seconds, peak_bytes=peak) for seconds, peak in ((3, 5), (1, 9), (2, 7))]
    (line,) = lines([*runs, Run(CELL, FAISS, 3, {"error": "stopped"})])
    assert (line.seconds, line.inertia, line.peak_bytes, line.rounds) == (2, 4, 9, 3)
    assert line.per_pass == 2 / 4
    assert line.errors == ("stopped",)


def seeded(ours: float, faiss: float, inertia: float) -> dict[str, bool | None]:
    runs = [made("ours, same seeds", ours, 1.0), made("faiss, same seeds", faiss, inertia)]
    return {each.requirement: each.met for each in bars.judge(lines(runs), runs)}


def test_the_same_seeds_are_judged_by_seconds_per_pass_and_inertia() -> None:
    def verdicts(*numbers: float) -> list[bool | None]:
        return [met for requirement, met in seeded(*numbers).items() if "same seeds" in requirement]

    assert verdicts(1, 1.01, 1 + SAME / 2) == [True, True]
    assert verdicts(1.01, 1, 1 + 2 * SAME) == [False, False]


def test_a_failure_of_ours_is_a_bar_that_is_not_met() -> None:
    runs = [made(FAISS, 1, 1), Run(CELL, OURS, 0, {"error": "stopped"})]
    assert bars.judge(lines(runs), runs)[-1].met is False
    assert bars.judge(lines(runs[:1]), runs[:1])[-1].met is True


# The command


@pytest.mark.slow
def test_the_command_measures_reports_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    names = ["ours", "ours, same seeds", "faiss", "faiss, same seeds", "faiss product"]
    words = [
        "offline", "--cells", "kmeans:patches:2000x64x16,product:patches:2000x64x8x16", "--rounds", "1",
        "--threads", "1", "--out", str(tmp_path), *(word for name in names for word in ("--contenders", name)),
    ]  # fmt: skip
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "offline.json").read_text())
    kmeans, product = record["cells"]
    assert [each["contender"] for each in kmeans["contenders"]] == [
        "ours, same seeds", "faiss, same seeds", "ours", "faiss"
    ]  # fmt: skip
    assert [each["contender"] for each in product["contenders"]] == ["faiss product"]
    for each in (*kmeans["contenders"], *product["contenders"]):
        assert each["seconds"] > 0
        assert 0 < each["inertia"] < 18  # the variance of the patches
        assert each["instructions"]
        assert not each["errors"]
    ours, faiss = kmeans["contenders"][:2]
    assert ours["inertia"] == pytest.approx(faiss["inertia"], rel=SAME)
    assert record["machine"]["threads"] == 1
    assert {"torch", "faiss-cpu", "scikit-learn"} <= record["versions"].keys()
    report = (tmp_path / "offline.md").read_text()
    for name in ("kmeans.png", "composed.png"):
        assert f"]({name})" in report
        with Image.open(tmp_path / name) as picture:
            picture.load()
            assert min(picture.size) > 400
    again = CliRunner().invoke(app, [*words, "--budget", "0"])
    assert again.exit_code == 0, again.output
    assert json.loads((tmp_path / "offline.json").read_text())["cells"] == record["cells"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--cells", "1e9"], "--cells: got '1e9'"),
        (["--cells", ","], "--cells: got no value"),
        (["--contenders", "scikit"], "--contenders: got 'scikit'"),
    ],
)
def test_bad_input_is_a_sentence(options: list[str], sentence: str) -> None:
    result = CliRunner().invoke(app, ["offline", *options])
    assert result.exit_code == 2
    assert sentence in " ".join(result.output.split())


def test_no_report_without_a_run(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["offline", "--cells", "1e7", "--budget", "0", "--out", str(tmp_path)])
    assert result.exit_code == 0
    assert "No run was finished" in result.output
    assert not (tmp_path / "offline.json").exists()
