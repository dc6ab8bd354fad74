"""AMD's GPUs, whose type is "cuda" as well: the library asks what PyTorch is built for, and not for the type."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.errors import InputError
from benchmarks.gpu.run import settle
from quantizers.kernels.common import dispatch
from quantizers.kernels.common.dispatch import use_implementation
from quantizers.kernels.nearest.operation import NEAREST_CODE
from quantizers.kernels.nearest.triton import tuning


@pytest.fixture
def rocm(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """A PyTorch that is built for ROCm, and the type of its GPUs."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.version, "hip", "6.2")
    dispatch._gpu_obstacle.cache_clear()
    dispatch.warn_once.cache_clear()
    yield torch.device("cuda", 0)
    dispatch._gpu_obstacle.cache_clear()
    dispatch.warn_once.cache_clear()


class _OnGPU(torch.Tensor):
    """A tensor that says it is on a GPU, and computes on the CPU."""

    device = torch.device("cuda", 0)  # type: ignore[assignment]


def test_rocm_runs_plain_torch_and_says_so_once(rocm: torch.device) -> None:
    x = torch.zeros(2, 3).as_subclass(_OnGPU)
    with pytest.warns(RuntimeWarning, match="this PyTorch is built for ROCm\nSlower functions") as caught:
        chosen = {NEAREST_CODE._implementation(x)[0] for _ in range(2)}
    assert chosen == {"blocked"}
    assert len(caught) == 1


@pytest.mark.parametrize("name", ["auto", "triton"])
def test_rocm_runs_no_kernel_in_place(rocm: torch.device, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Functions that are PyTorch's own operations elsewhere stay so."""
    monkeypatch.setattr(dispatch, "runs_eagerly", lambda *tensors: True)
    with use_implementation(name):
        assert not dispatch.runs_triton(torch.zeros(2, 3).as_subclass(_OnGPU))


def test_rocm_refuses_to_tune(rocm: torch.device) -> None:
    x = torch.zeros(1, 2, 3).as_subclass(_OnGPU)
    with pytest.raises(RuntimeError, match=r"cannot be tuned: .* this PyTorch is built for ROCm"):
        tuning.tune(x, x)


def test_rocm_refuses_the_benchmark_of_kernels(rocm: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(InputError, match="this PyTorch is built for ROCm"):
        settle([], interpreted=False, out=Path("nowhere"), budget=1.0)
