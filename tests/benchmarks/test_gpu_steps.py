"""Training steps of this library and of the main peer in `python -m benchmarks gpu`, and graphs that fail."""

import contextlib
import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.gpu import contenders, findings, graphs, report, speed
from benchmarks.gpu.graphs import captured, first_cause
from benchmarks.gpu.run import rival_versions
from benchmarks.gpu.stages import Place
from benchmarks.kernels.memory import resident_peak
from benchmarks.kernels.rivals import CDIST, PEER, Rival, prepare_cdist
from benchmarks.kernels.shapes import Shape, draw
from benchmarks.kernels.steps import GUMBEL, PAIRS, ROTATION, SIMVQ, VQ, Pair
from benchmarks.residency import is_measurable

CPU = torch.device("cpu")
ROUNDOFF = 2**-24


def of(name: str) -> Pair:
    (pair,) = [pair for pair in PAIRS if pair.ours.name == name]
    return pair


@pytest.mark.parametrize("name", [ROTATION, SIMVQ])
def test_both_libraries_do_the_same_work(name: str) -> None:
    """Indices, codes, loss and gradients, up to float32's rounding of sums of 200 · 4 terms.

    One term of the peer's loss moves vectors and learned codes where ours has a term for each.
    """
    pytest.importorskip("vector_quantize_pytorch")
    pair = of(name)
    mine, theirs = (rival.prepare(*draw(Shape(200, 50, 4), CPU))() for rival in (pair.ours, pair.peer))
    assert torch.equal(mine[0], theirs[0])
    terms = 2 if name == ROTATION else 1
    quantized, loss, *gradients = theirs[1:]
    assert len(gradients) == 2
    for a, b in zip(mine[1:], [quantized, terms * loss, *gradients], strict=True):
        # A rotated vector has D roundings of each of three products more than a code that is looked up.
        assert float((a - b.reshape(a.shape)).abs().max()) <= 800 * ROUNDOFF * max(1, float(a.abs().max()))


def test_both_libraries_sample_codes_with_a_gradient() -> None:
    """A code in each row, and a gradient of the vectors that differs from row to row."""
    pytest.importorskip("vector_quantize_pytorch")
    x, codebook = draw(Shape(200, 50, 4), CPU)
    for rival in (of(GUMBEL).ours, of(GUMBEL).peer):
        torch.manual_seed(0)
        indices, quantized, _, gradient, *_ = rival.prepare(x, codebook)()
        assert torch.allclose(quantized, codebook[indices], atol=1e-6)
        assert len(indices.unique()) > 10
        assert not torch.equal(indices, torch.cdist(x, codebook).argmin(-1))
        assert gradient.shape == x.shape
        assert (gradient.abs().sum(1) > 0).all()
        # Straight through, the gradient would be that of the quantized vectors.
        upstream = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
        assert not torch.allclose(gradient, upstream, atol=0.1)


@pytest.mark.slow
@pytest.mark.skipif(not is_measurable(), reason="the system does not say how much memory a process takes")
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.peer.name)
def test_the_matrices_of_the_peer_are_counted(pair: Pair) -> None:
    """Between one matrix too few and two too many: on a GPU, products may need space of their own."""
    pytest.importorskip("vector_quantize_pytorch")
    shape = Shape(2048, 4096, 4)
    pair.peer.prepare(*draw(Shape(64, 64, 4), CPU))()
    peak, _ = resident_peak(pair.peer.prepare(*draw(shape, CPU)))
    assert peak / (4 * shape.n * shape.k) <= pair.peer.matrices + 0.5
    assert peak / (4 * shape.n * shape.k) >= pair.peer.matrices - 2


def test_each_step_is_timed_in_four_ways() -> None:
    assert len(contenders.STEPS) == len(contenders.PEERS) == len(contenders.PEER_GRAPHS) == 5
    assert all(rival.package == "vector_quantize_pytorch" for rival in contenders.PEERS)
    assert all(rival.devices == ("cuda",) for rival in contenders.PEER_GRAPHS)
    assert {rival.against for rival in contenders.PEERS} == {rival.name for rival in contenders.STEPS}


def test_a_peer_that_fails_leaves_the_others_their_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is prepared, or later, when memory is short."""

    def prepare(x: torch.Tensor, codebook: torch.Tensor) -> Any:
        runs: list[int] = []

        def work() -> tuple[torch.Tensor, ...]:
            runs.append(0)
            if len(runs) == 2:
                raise RuntimeError("out of memory\nby some bytes")
            return ()

        return work

    def refuse(x: torch.Tensor, codebook: torch.Tensor) -> Any:
        raise RuntimeError("operation not permitted")

    rivals = [Rival("late", prepare), Rival("early", refuse), Rival(CDIST, prepare_cdist)]
    absent = Rival("absent", refuse, package="no_such_package")
    numbers = speed._times_of_each([*rivals, absent], Shape(20, 9, 4), Place(CPU, tmp_path))
    assert list(numbers["times_ms"]) == [CDIST]
    assert numbers["failures"] == {"late": "out of memory", "early": "operation not permitted"}
    assert numbers["left_out"] == ["absent is left out: the package no_such_package is not installed."]


# -- graphs, on a stand-in for CUDA


class Generator:
    def __init__(self) -> None:
        self.state = "before"

    def clone_state(self) -> str:
        return self.state

    def graphsafe_set_state(self, state: str) -> None:
        self.state = state


class Stream:
    def wait_stream(self, other: "Stream") -> None:
        pass


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Just enough of torch.cuda for a capture, whose end fails if what was captured did."""
    now = SimpleNamespace(stream=Stream(), generator=Generator(), replays=0)
    now.first = now.stream

    @contextlib.contextmanager
    def stream(other: Stream) -> Iterator[None]:
        before, now.stream = now.stream, other
        yield
        now.stream = before

    class Graph:
        def replay(self) -> None:
            now.replays += 1

    @contextlib.contextmanager
    def graph(each: Graph) -> Iterator[None]:
        now.stream, before = Stream(), now.stream
        now.generator.state = "of a graph"
        try:
            yield
        finally:
            if now.fails:
                raise RuntimeError("operation failed due to a previous error during capture")
            now.stream, now.generator.state = before, "before"

    monkeypatch.setattr(torch.cuda, "current_stream", lambda: now.stream)
    monkeypatch.setattr(torch.cuda, "set_stream", lambda other: setattr(now, "stream", other))
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "default_generators", [now.generator])
    now.fails = False
    return now


def test_a_graph_replays_what_was_captured(cuda: SimpleNamespace) -> None:
    runs: list[int] = []
    replay = captured(lambda: (torch.tensor(len(runs)), runs.append(0))[:1])  # type: ignore[func-returns-value]
    assert [int(replay()[0]) for _ in range(2)] == [2, 2]  # after two runs that load kernels
    assert (len(runs), cuda.replays) == (3, 2)


def test_a_failed_capture_gives_its_cause_and_leaves_nothing_behind(cuda: SimpleNamespace) -> None:
    cuda.fails, runs = True, 0

    def work() -> tuple[torch.Tensor, ...]:
        nonlocal runs
        runs += 1
        if runs == 3:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")
        return ()

    with pytest.raises(RuntimeError, match=r"^operation not permitted when stream is capturing$"):
        captured(work)
    assert cuda.stream is cuda.first
    assert cuda.generator.state == "before"


def test_the_first_cause_of_an_error() -> None:
    cause = ValueError("cause")
    for chain in (RuntimeError("alone"), cause):
        assert first_cause(chain) is chain

    def fail() -> None:
        try:
            raise cause
        except ValueError as error:
            raise RuntimeError("effect") from error

    with pytest.raises(RuntimeError) as caught:
        fail()
    assert first_cause(caught.value) is cause


# -- in a report


def timed(**milliseconds: float) -> dict[str, Any]:
    return {name: {"median": value} for name, value in milliseconds.items()}


def record(parts: dict[str, Any]) -> dict[str, Any]:
    stage = {"limit": 60.0, "seconds": 50.0, "parts": parts}
    return {"benchmark": "gpu", "interpreted": False, "stages": {"speed": stage}}


def steps_record() -> dict[str, Any]:
    peer = of(VQ).peer.name
    return record(
        {
            "step 8x8x8": {"times_ms": timed(**{VQ: 5.0, f"{VQ}, graph": 0.5}), "failures": {}},
            "peer's step 8x8x8": {"times_ms": timed(**{peer: 20.0}), "failures": {}},
            "graph of the peer's step 8x8x8": {
                "times_ms": timed(**{f"{peer}, graph": 2.0}),
                "failures": {f"{PEER}, EMA, graph": "operation not permitted"},
            },
            "kernels 8x8x8": {"launched": {VQ: {"_search": {"launches": 1, "us": 300.0}}}, "failures": {}},
        }
    )


def test_the_table_has_both_libraries_and_both_ways() -> None:
    (sheet,) = [sheet for sheet in report.sheets(steps_record()) if sheet.title.startswith("Training steps")]
    assert sheet.rows == [["8x8x8", VQ, "5", "0.5", "20", "2", "4×", "4×"]]


def test_findings_say_by_what_a_goal_is_missed() -> None:
    found = [sentence for sentence in findings.findings(steps_record()) if "the peer's" in sentence]
    assert found == [
        "step VQ, as a graph, at 8x8x8 is 4 times as fast as the peer's, expected 5; "
        "the device takes 0.5 ms; _search takes 100% of its kernels' time",
        "step VQ, eager, at 8x8x8 is 4 times as fast as the peer's, expected 5; the host takes 4.5 of its 5 ms",
    ]
    assert f"{PEER}, EMA, graph cannot run at 8x8x8: operation not permitted" in findings.findings(steps_record())


def test_peers_that_are_not_there_or_cannot_run_are_said_once() -> None:
    sentence = f"{PEER}, learned is left out: the package vector_quantize_pytorch is not installed."
    parts = {f"peer's step {n}x8x8": {"times_ms": {}, "failures": {}, "left_out": [sentence]} for n in (8, 9)}
    for n in (6, 7):
        parts[f"peer's step {n}x8x8"] = {"times_ms": {}, "failures": {of(VQ).peer.name: "not enough memory"}}
    assert findings.findings(record(parts)) == [
        sentence.rstrip("."),
        f"{PEER}, learned cannot run at 6x8x8, 7x8x8: not enough memory",
    ]


def test_a_report_has_the_versions_of_what_it_compares_with(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name != PEER:
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.2.3"

    monkeypatch.setattr("importlib.metadata.version", version)
    assert rival_versions() == {PEER: "1.2.3"}


def test_graphs_are_named_alike() -> None:
    assert graphs.as_graph(of(VQ).peer).name == graphs.named_graph(of(VQ).peer.name)
