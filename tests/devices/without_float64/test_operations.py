"""The operations give there what the reference gives on a CPU: exact searches, and sums in float64."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from quantizers.clustering.balanced import balanced_codes
from quantizers.clustering.distinct import distinct_codes
from quantizers.kernels.common.dispatch import use_implementation
from quantizers.kernels.common.wide import multiplies_in_float32
from quantizers.kernels.highest.operation import highest_score
from quantizers.kernels.k_nearest.operation import k_nearest_codes
from quantizers.kernels.nearest import blocked
from quantizers.kernels.nearest.operation import nearest_code
from quantizers.kernels.rotation.operation import rotate_grad
from quantizers.kernels.sums.operation import code_sums
from tests.devices import emulated
from tests.devices.emulated import DEVICE
from tests.effort import examples
from tests.exact import assert_nearest
from tests.vectors import few, finite, vectors

seeds = st.integers(0, 2**31)


def drawn(seed: int, *shapes: tuple[int, ...], step: float) -> list[Tensor]:
    """Normal tensors, rounded to multiples of `step` unless it is zero: a coarse grid has many ties."""
    generator = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(shape, generator=generator) for shape in shapes]
    return [(tensor / step).round() * step for tensor in tensors] if step else tensors


@examples(100)
@given(data=st.data(), dim=st.integers(1, 4), values=st.sampled_from([finite, few]))
def test_the_nearest_code_is_exact(data: st.DataObject, dim: int, values: st.SearchStrategy[float]) -> None:
    """Any float32 values: ties, duplicates, denormals, clusters far apart and codes a rounding apart."""
    x, codebook = data.draw(vectors(dim, 6, values)), data.draw(vectors(dim, 12, values))
    indices, distance = nearest_code(x[None].to(DEVICE), codebook[None].to(DEVICE))
    assert indices.device == distance.device == DEVICE
    assert_nearest(indices[0].cpu(), x, codebook)


@given(
    seed=seeds,
    sizes=st.sampled_from([(40, 30, 8), (300, 500, 3), (70, 4100, 16)]),
    step=st.sampled_from([0.0, 0.5, 1.0]),
    scale=st.sampled_from([1e-25, 1e-3, 1.0, 1e20]),
    offset=st.sampled_from([0.0, 100.0]),
)
def test_indices_are_those_of_the_reference(
    seed: int, sizes: tuple[int, int, int], step: float, scale: float, offset: float
) -> None:
    """Also of ties, which go to the lowest index."""
    n, k, d = sizes
    x, codebook = (scale * (offset + each) for each in drawn(seed, (1, n, d), (1, k, d), step=step))
    with use_implementation("reference"):
        expected, _ = nearest_code(x, codebook)
        nearest, _ = k_nearest_codes(x, codebook, 3)
    assert torch.equal(nearest_code(x.to(DEVICE), codebook.to(DEVICE))[0].cpu(), expected)
    assert torch.equal(k_nearest_codes(x.to(DEVICE), codebook.to(DEVICE), 3)[0].cpu(), nearest)


def test_the_search_stays_on_the_device() -> None:
    """Only rows that float32 leaves open leave it; for normal vectors that is none here."""
    x, codebook = drawn(0, (1, 200, 8), (1, 64, 8), step=0.0)
    with use_implementation() as counts:
        nearest_code(x.to(DEVICE), codebook.to(DEVICE))
    assert counts == {("nearest_code", "blocked"): 1}


def test_the_search_is_exact_where_products_are_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the check of the device's products, many indices would differ."""
    x, codebook = drawn(0, (1, 1000, 8), (1, 2000, 8), step=0.0)
    with use_implementation("reference"):
        expected, _ = nearest_code(x, codebook)
    monkeypatch.setattr(emulated, "ROUNDED_PRODUCTS", True)
    multiplies_in_float32.cache_clear()
    assert not multiplies_in_float32(DEVICE)
    assert torch.equal(nearest_code(x.to(DEVICE), codebook.to(DEVICE))[0].cpu(), expected)
    monkeypatch.setattr(blocked, "multiplies_in_float32", lambda device: True)
    assert not torch.equal(nearest_code(x.to(DEVICE), codebook.to(DEVICE))[0].cpu(), expected)
    monkeypatch.undo()
    multiplies_in_float32.cache_clear()
    assert multiplies_in_float32(DEVICE)


@pytest.mark.parametrize("name", ["auto", "reference"])
@given(seed=seeds, step=st.sampled_from([0.0, 1.0]))
def test_other_operations_compute_on_the_cpu(name: str, seed: int, step: float) -> None:
    """Bit for bit what the CPU gives, under the same name."""
    x, keys, gradient = drawn(seed, (20, 4), (9, 4), (20, 4), step=step)
    bias, indices = keys[:, 0].clone(), torch.arange(20) % 9

    def results(device: torch.device) -> list[Tensor]:
        moved = [tensor.to(device) for tensor in (x, keys, gradient, bias, indices)]
        own, own_keys, own_gradient, own_bias, own_indices = moved
        outputs = [
            highest_score(own, own_keys, own_bias),
            *code_sums(own[None], own_indices[None], 9),
            rotate_grad(own_gradient, own, own_keys[own_indices]),
        ]
        assert {output.device for output in outputs} == {device}
        return [output.cpu() for output in outputs]

    with use_implementation(name):
        for actual, expected in zip(results(DEVICE), results(torch.device("cpu")), strict=True):
            assert torch.equal(actual, expected)


def test_an_implementation_that_cannot_run_there_says_so() -> None:
    x = torch.zeros(1, 3, 2, device=DEVICE)
    with use_implementation("compiled"), pytest.raises(RuntimeError, match="it runs on a CPU"):
        code_sums(x, torch.zeros(1, 3, dtype=torch.int64, device=DEVICE), 2)


@pytest.mark.parametrize("method", ["auction", "sinkhorn"])
def test_assignments_with_capacities(method: str) -> None:
    x, codebook = drawn(3, (60, 4), (10, 4), step=0.0)
    expected = balanced_codes(x, codebook, 6, method=method)  # type: ignore[arg-type]
    actual = balanced_codes(x.to(DEVICE), codebook.to(DEVICE), 6, method=method)  # type: ignore[arg-type]
    assert actual.device == DEVICE
    assert torch.equal(actual.cpu(), expected)


def test_distinct_codes() -> None:
    x, codebook = drawn(4, (30, 4), (12, 4), step=0.0)
    groups, taken = torch.arange(30) % 5, torch.rand(5, 12) < 0.3
    expected = distinct_codes(x, codebook, groups, taken)
    actual = distinct_codes(x.to(DEVICE), codebook.to(DEVICE), groups.to(DEVICE), taken.to(DEVICE))
    assert torch.equal(actual.cpu(), expected)
