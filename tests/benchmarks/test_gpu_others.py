"""What is built on the search in `python -m benchmarks gpu`: its pieces on the CPU."""

from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import torch

import quantizers
from benchmarks.gpu import findings, others, report, speed
from benchmarks.gpu.others import BENCH, FIT, K_NEAREST, TUNE, clustered
from benchmarks.gpu.stages import Place
from benchmarks.kernels.rivals import CDIST, OURS
from benchmarks.kernels.shapes import Shape, draw
from benchmarks.variants import COMPARED

CPU = torch.device("cpu")
SHAPE = Shape(300, 64, 8)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(CPU, tmp_path)


def test_clustered_vectors_are_near_their_codes() -> None:
    x, codebook = clustered(Shape(2000, 1024, 8), CPU)
    assert (x.shape, codebook.shape) == ((2000, 8), (1024, 8))
    nearest, farthest = torch.cdist(x, codebook).amin(1), torch.cdist(x, codebook).amax(1)
    assert float(nearest.max()) < 1 < float(farthest.min())
    # Several codes to a cluster, so that a search has something to tell apart.
    assert len(torch.cdist(x, codebook).argmin(1).unique()) > 1024 // others.CODES_OF_A_CLUSTER


def test_both_find_the_same_nearest_codes() -> None:
    x, codebook = draw(SHAPE, CPU)
    indices, squared = others._prepare_k_nearest(x, codebook)()
    distances, expected = others._prepare_topk(x, codebook)()
    assert torch.equal(indices[0], expected)
    assert torch.allclose(squared[0], distances**2, atol=1e-5)


def test_both_loops_find_the_same_codes() -> None:
    """Lloyd's iterations are the same in any library, up to codes that lose all their vectors."""
    x, codebook = clustered(Shape(1000, 8, 4), CPU)
    codebook = x[:8].clone()
    ours, theirs = (
        prepare(x, codebook, passes=3)()[0] for prepare in (others._prepare_fit, others._prepare_lloyd)
    )
    errors = [float(torch.cdist(x, codes).amin(1).square().mean()) for codes in (ours, theirs, codebook)]
    assert errors[0] <= 1.01 * errors[1]
    assert errors[1] < errors[2]


def test_each_kind_has_shapes_and_a_function() -> None:
    assert set(others.SHAPES) == set(others.RUN) == {TUNE, K_NEAREST, FIT}
    for interpreted in (True, False):
        parts = [part for phase in speed.phases(interpreted, 2) for part in phase.parts]
        assert len(parts) == len(set(parts))
        assert BENCH in parts
        for part in parts:
            assert [kind for kind in speed.KINDS if part.startswith(kind)]
        assert {kind for kind in others.RUN if any(part.startswith(kind) for part in parts)} == set(others.RUN)


def test_goals_are_measured_before_the_rest_and_large_shapes_before_small_ones() -> None:
    parts = [part for phase in speed.phases(False, 16) for part in phase.parts]
    kinds = [next(kind for kind in speed.KINDS if part.startswith(kind)) for part in parts]
    order = [kind for kind in dict.fromkeys(kinds) if kind != speed.HOST]  # its first part is compiled for
    assert order[:5] == [speed.COMPILE, speed.SEARCH, speed.STEP, speed.PEER, speed.PEER_GRAPH]
    assert order[-4:] == [BENCH, TUNE, K_NEAREST, FIT]
    products = [shape.flops for shape in speed.SHAPES]
    assert sorted(products[:2]) == sorted(products)[-2:]
    assert all(phase.seconds == speed.PART_S for phase in speed.phases(False, 16))
    assert all(phase.seconds == float("inf") for phase in speed.phases(True, 2))


# -- make bench


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vq", "gumbel"])
def test_without_its_packages_the_trainings_run(name: str, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(others, "missing_packages", lambda: ["matplotlib", "pillow"])
    monkeypatch.setattr(others, "INTERPRETED", (name, "no_such_quantizer"))
    numbers = others.bench(place)
    assert numbers["left_out"] == ["the table of make bench is left out: matplotlib, pillow are not installed"]
    assert list(numbers["mse"]) == [name]
    assert 0 < numbers["mse"][name] < 1
    assert "no_such_quantizer" in numbers["failures"]


def test_the_command_is_that_of_make_bench(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **_: Any) -> CompletedProcess[bytes]:
        commands.append(command[1:])
        (place.out / "bench").mkdir(exist_ok=True)
        (place.out / "bench" / "utilization.md").write_text("| vq |")
        return CompletedProcess(command, 0)

    monkeypatch.setattr(others, "missing_packages", list)
    monkeypatch.setattr(others, "run", run)
    assert others.bench(place) == {"table": "| vq |"}
    (command,) = commands
    assert command[:2] == ["-c", others.ALONE]
    assert command[command.index("--device") + 1] == "cpu"
    on_device = place._replace(device=torch.device("cuda"))
    others.bench(on_device)
    assert commands[1][commands[1].index("--device") + 1] == "cuda"
    assert "--quantizers" not in commands[1]  # all that are compared by default


def test_a_command_that_fails_says_why(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], stdout: Any, **_: Any) -> CompletedProcess[bytes]:
        stdout.write("no kernel image is available")
        stdout.flush()
        return CompletedProcess(command, 1)

    monkeypatch.setattr(others, "missing_packages", list)
    monkeypatch.setattr(others, "run", run)
    with pytest.raises(RuntimeError, match=r"code 1: no kernel image is available$"):
        others.bench(place)


def test_what_make_bench_compares_can_be_built() -> None:
    assert {name.partition(":")[0] for name in COMPARED} - {"none"} <= set(quantizers.available())


# -- in a report


def record() -> dict[str, Any]:
    def timed(**milliseconds: float) -> dict[str, Any]:
        return {"times_ms": {name: {"median": value} for name, value in milliseconds.items()}, "failures": {}}

    parts = {
        f"{K_NEAREST}8x8x8": timed(**{OURS: 1.0, f"{OURS}, graph": 0.5, others.CDIST_TOPK: 3.0}),
        f"{FIT}9x9x9": timed(**{OURS: 2.0, CDIST: 3.0}),
        f"{TUNE}8x8x8": {"ways_ms": {"all codes": 2.0, "pruned": 1.0}, "different": {"all codes": 0, "pruned": 3}},
        BENCH: {"left_out": ["the table of make bench is left out: pillow are not installed"],
                "mse": {}, "failures": {"vq": "no kernel image"}},
    }  # fmt: skip
    stage = {"limit": 60.0, "seconds": 50.0, "parts": parts}
    return {"benchmark": "gpu", "interpreted": False, "stages": {"speed": stage}}


def test_the_tables() -> None:
    rows = {sheet.title: sheet.rows for sheet in report.sheets(record())}
    assert rows["Built on the search, ms"] == [
        ["8x8x8", "nearest codes", "1", "0.5", "3", "3×"],
        ["9x9x9", "fit", "2", "-", "3", "1.5×"],
    ]
    assert rows["Ways to search clustered data"] == [
        ["8x8x8", "pruned", "1", "3"],
        ["8x8x8", "all codes", "2", "0"],
    ]


def test_the_findings() -> None:
    assert findings.findings(record()) == [
        "3 rows at 8x8x8 have another result with pruned",
        "make bench, vq, fails: no kernel image",
        "the table of make bench is left out: pillow are not installed",
    ]
