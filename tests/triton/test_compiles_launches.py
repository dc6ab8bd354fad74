"""What the nearest-code search launches, without a GPU: compiled variants, grids, and kernels a call."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from quantizers.kernels.nearest.triton.nearest import nearest_code, nearest_lookup
from tests.triton.interpreter import compiles_kernels
from tests.triton.variants import TorchKernels, compiled_again, recorded_launches

pytestmark = compiles_kernels

MODES = ["highest", "high", "medium"]
Layout = Callable[[int, int, int], Tensor]


def contiguous(heads: int, n: int, d: int) -> Tensor:
    return torch.empty(heads, n, d)


def heads_in_channels(heads: int, n: int, d: int) -> Tensor:
    return torch.empty(n, heads, d).transpose(0, 1)


def channels_first(heads: int, n: int, d: int) -> Tensor:
    return torch.empty(heads, d, n + 1)[..., :n].transpose(1, 2)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("d", [5, 8, 64, 300])
@pytest.mark.parametrize("layout", [contiguous, heads_in_channels, channels_first])
def test_each_kernel_is_compiled_once_for_all_batch_sizes(mode: str, d: int, layout: Layout) -> None:
    torch.set_float32_matmul_precision(mode)
    codebook = torch.empty(3, 1000, d)
    for search in (nearest_code, nearest_lookup):
        assert compiled_again(lambda n, search=search: search(layout(3, n, d), codebook)) == {}


@pytest.mark.parametrize("mode", MODES)
def test_each_kernel_is_compiled_once_for_all_codebook_sizes(mode: str) -> None:
    torch.set_float32_matmul_precision(mode)
    assert compiled_again(lambda size: nearest_code(torch.empty(2, 100, 8), torch.empty(2, size, 8))) == {}


def test_float64_is_compiled_once_for_all_batch_sizes() -> None:
    codebook = torch.empty(3, 100, 8, dtype=torch.float64)
    assert compiled_again(lambda n: nearest_code(torch.empty(3, n, 8, dtype=torch.float64), codebook)) == {}


@pytest.mark.parametrize("mode", MODES)
def test_more_heads_than_an_axis_of_a_grid_can_have(mode: str) -> None:
    """CUDA limits the second and third axis to 65,535."""
    torch.set_float32_matmul_precision(mode)
    with recorded_launches() as launches:
        for dtype in (torch.float32, torch.float64):
            x = torch.empty(70_000, 300, 2, dtype=dtype, device="meta")
            nearest_lookup(x, torch.empty(70_000, 500, 2, device="meta"))
    assert launches
    assert all(launch.fits for launch in launches)


@pytest.mark.parametrize(("mode", "most"), [("highest", 7), ("high", 5), ("medium", 5)])
def test_a_call_launches_few_kernels(mode: str, most: int) -> None:
    """Two to find the location of the codes, one to pack, one to score, one to settle; two for the rest.

    Each takes microseconds, whether it is a kernel of ours or PyTorch's.
    """
    torch.set_float32_matmul_precision(mode)
    x, codebook = torch.empty(2, 5000, 24), torch.empty(2, 900, 24)
    for search in (nearest_code, nearest_lookup):
        with recorded_launches() as launches, TorchKernels() as others:
            search(x, codebook)
        assert len(launches) + len(others.names) <= most, [launch.name for launch in launches] + others.names


def test_recorders_see_every_launch() -> None:
    """A sum and a cumulative sum of PyTorch, beside the kernels of a search; views and allocations are none."""
    with recorded_launches() as launches, TorchKernels() as others:
        nearest_code(torch.empty(1, 5, 3, dtype=torch.float64), torch.empty(1, 7, 3))
        torch.empty(4, 5).t().contiguous().sum(0).cumsum(0).view(-1)
    assert [launch.name for launch in launches] == ["_summarize", "_combine", "_score", "_finish"]
    assert others.names == ["arange", "full", "_to_copy", "clone", "sum", "cumsum"]
