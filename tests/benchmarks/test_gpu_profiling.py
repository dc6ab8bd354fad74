"""The kernels of one call, from events as torch's profiler gives them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.gpu import host, profiling, report, speed
from benchmarks.gpu.profiling import by_short_name, of_kernels, profiled, short_name, total_us
from benchmarks.gpu.stages import Place
from benchmarks.kernels.rivals import OURS, Rival

CUDA, CPU = torch.autograd.DeviceType.CUDA, torch.autograd.DeviceType.CPU
FILL = "at::native::vectorized_elementwise_kernel<4, at::native::FillFunctor<float>, std::array<char*, 1ul> >(int)"
ADD = FILL.replace("FillFunctor", "CUDAFunctor_add")


def event(name: str, us: float, device: Any = CUDA, annotation: bool = False) -> SimpleNamespace:
    return SimpleNamespace(name=name, device_time=us, device_type=device, is_user_annotation=annotation)


EVENTS = [
    event("_pack", 3.0),
    event("aten::mm", 100.0, CPU),
    event("Torch-Compiled Region", 100.0, annotation=True),
    event("_search", 40.0),
    event("void " + FILL, 1.0),
    event("void " + ADD, 2.0),
    event("_pack", 4.0),
    event("Memset (Device)", 0.5),
]


class Profile:
    """A profiler that has seen these events."""

    def __init__(self, activities: list[Any]) -> None:
        assert activities == [torch.profiler.ProfilerActivity.CUDA]

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def events(self) -> list[SimpleNamespace]:
        return EVENTS


class Device(Place):
    """A place that is a device in name only."""

    def wait(self) -> None:
        pass


PLACE = Device(torch.device("cuda"), Path())


def run() -> tuple[()]:
    return ()


def test_kernels_of_one_name_are_summed_and_the_slowest_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.profiler, "profile", Profile)
    launched = profiled(run, PLACE)
    assert list(launched) == ["_search", "_pack", ADD[:120], FILL[:120], "Memset (Device)"]
    assert launched["_pack"] == {"launches": 2, "us": 7.0}
    assert total_us(launched) == 50.5
    assert total_us(of_kernels(launched)) == 50.0
    assert by_short_name(launched)["vectorized_elementwise_kernel"] == {"launches": 2, "us": 3.0}
    assert host._profiled(run, PLACE) == {"kernels_launched": 5, "device_us": 50.0, "launched": launched}


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("_search", "_search"),
        (FILL, "vectorized_elementwise_kernel"),
        ("at::native::(anonymous namespace)::fill_kernel<float>(float*)", "fill_kernel"),
        ("Memset (Device)", "Memset"),
        ("Memcpy DtoD (Device -> Device)", "Memcpy DtoD"),
        ("<>", "<>"),
    ],
)
def test_short_names(name: str, short: str) -> None:
    assert short_name(name) == short


def test_a_profiler_that_fails_leaves_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(activities: list[Any]) -> Profile:
        raise RuntimeError("CUPTI is in use\nby another process")

    monkeypatch.setattr(torch.profiler, "profile", fail)
    assert host._profiled(run, PLACE) == {"no_profile": "CUPTI is in use"}

    fine, bad = (Rival(name, lambda x, codebook: lambda: (x,)) for name in ("fine", "bad"))
    broken = Rival("broken", lambda x, codebook: 1 / 0)
    monkeypatch.setattr(speed, "SEARCHES", ())
    monkeypatch.setattr(speed, "STEPS", (bad, broken, fine))
    answers = iter([lambda: fail([]), lambda: {"_search": {"launches": 1, "us": 1.0}}])
    monkeypatch.setattr(speed, "profiled", lambda work, place: next(answers)())
    found = speed._kernels(speed.TINY, Place(torch.device("cpu"), Path()))
    assert list(found["launched"]) == ["fine"]
    assert found["failures"] == {"bad": "CUPTI is in use", "broken": "division by zero"}


def test_the_table_shows_calls_and_their_slowest_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.profiler, "profile", Profile)
    launched = profiled(run, PLACE)
    parts = {
        "host nearest_code": {"launched": launched},
        "host fsq": {"no_profile": "CUPTI is in use"},
        "search 8x8x8": {"times_ms": {}},
        "kernels 8x8x8": {"launched": {"VQ": {"_search": {"launches": 1, "us": 1.0}}}, "failures": {OURS: "x"}},
    }
    sheet = report.kernel_sheet(parts)
    assert sheet.rows == [
        [
            "nearest_code",
            "6",
            "50.5",
            "_search 40",
            "_pack 7 (2)",
            "vectorized_elementwise_kernel 3 (2)",
            "Memset 0.5",
        ],
        ["8x8x8 VQ", "1", "1", "_search 1", "-", "-", "-"],
    ]
    assert all(len(row) == len(sheet.headings) for row in sheet.rows)


def test_the_interpreter_has_no_device_to_ask() -> None:
    done: list[int] = []
    assert profiling.profiled(lambda: (done.append(1), ())[1], Place(torch.device("cpu"), Path())) == {}
    assert done == [1]
