"""The k nearest codes by the kernel, against exact arithmetic and against the reference."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from quantizers.kernels.common.dispatch import use_implementation
from quantizers.kernels.k_nearest import reference, triton
from quantizers.kernels.k_nearest.operation import k_nearest_codes
from tests.exact import assert_k_nearest
from tests.triton.interpreter import device, runs_kernels
from tests.vectors import few, finite, vectors

pytestmark = runs_kernels


def searched(x: Tensor, codebook: Tensor, k: int) -> tuple[Tensor, Tensor]:
    indices, distance = triton.k_nearest_codes(x.to(device()), codebook.to(device()), k)
    return indices.cpu(), distance.cpu()


def assert_as_in_the_reference(x: Tensor, codebook: Tensor, k: int) -> None:
    for actual, expected in zip(searched(x, codebook, k), reference.k_nearest_codes(x, codebook, k), strict=True):
        torch.testing.assert_close(actual, expected, equal_nan=True)


@given(data=st.data(), dim=st.integers(1, 4), values=st.sampled_from([finite, few]))
def test_every_place_is_exact(data: st.DataObject, dim: int, values: st.SearchStrategy[float]) -> None:
    x, codebook = data.draw(vectors(dim, 3, values)), data.draw(vectors(dim, 10, values))
    k = data.draw(st.integers(1, len(codebook)))
    assert_k_nearest(searched(x[None], codebook[None], k)[0][0], x, codebook)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_codes_in_several_steps_and_heads(dtype: torch.dtype) -> None:
    x, codebook = torch.randn(2, 3, 2).to(dtype), torch.randn(2, triton.CODES + 40, 2).to(dtype)
    codebook[:, -30:] = codebook[:, 5:35]  # ties between the steps
    assert_as_in_the_reference(x, codebook, 4)


@pytest.mark.parametrize("budget", [1, 50])
def test_rows_in_several_launches(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton, "SCORE_BUDGET", budget)
    assert_as_in_the_reference(torch.randn(1, 4, 3), torch.randint(-1, 2, (1, 9, 3)).float(), 9)


def test_broken_vectors_and_codes() -> None:
    x, codebook = torch.randn(1, 4, 3), torch.randn(1, 5, 3).repeat(1, 2, 1)
    x[0, 1, 2], codebook[0, 3, 0], codebook[0, 6, 1] = torch.nan, torch.inf, torch.nan
    assert_as_in_the_reference(x, codebook, 10)
    assert_as_in_the_reference(x[:, :0], codebook, 2)


def test_the_operation_runs_the_kernel() -> None:
    with use_implementation("triton") as counts:
        k_nearest_codes(torch.randn(1, 2, 3).to(device()), torch.randn(1, 4, 3).to(device()), 2)
    assert counts == {("k_nearest_codes", "triton"): 1}
