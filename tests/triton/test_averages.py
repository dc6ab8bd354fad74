"""A step of EMA VQ's averages in place, against the reference in float64."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from quantizers import EMAVectorQuantizer
from quantizers.kernels.averages import reference
from quantizers.kernels.averages import triton as kernels
from quantizers.kernels.common.dispatch import use_implementation
from quantizers.kernels.sums.reference import code_sums
from tests.effort import examples
from tests.triton.interpreter import device, runs_kernels

pytestmark = runs_kernels

EPSILON = 1e-5
NAMES = ("embedding", "cluster_size", "embedding_sum")


def draw_state(size: int, d: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Averages and their codes, up to one rounding."""
    cluster_size, embedding_sum = 10 * torch.rand(size, dtype=dtype), torch.randn(size, d, dtype=dtype)
    return [reference.smoothed_codes(cluster_size, embedding_sum, EPSILON), cluster_size, embedding_sum]


def step(z: Tensor, indices: Tensor, state: list[Tensor], decay: float, is_cosine: bool) -> list[Tensor]:
    """The new state by the kernels, after the codes before the step."""
    moved = [tensor.clone().to(device()) for tensor in state]
    previous = torch.full_like(moved[0], torch.nan)
    kernels.average_codes_(z.to(device()), indices.to(device()), *moved, previous, decay, EPSILON, is_cosine)
    assert torch.equal(previous.cpu().nan_to_num(7.0), state[0].nan_to_num(7.0))
    return [tensor.cpu() for tensor in moved]


def assert_moved(
    z: Tensor, indices: Tensor, state: list[Tensor], decay: float, is_cosine: bool = False
) -> list[Tensor]:
    """The new state, within the roundings that kernels/averages/README.md counts."""
    actual = step(z, indices, state, decay, is_cosine)
    wide = [tensor.double() for tensor in state]
    codes, sizes, sums = reference.average_codes(z, indices, *wide, decay, EPSILON, is_cosine)
    old = reference.sums_of_codes(*wide, EPSILON, is_cosine)
    counts, batch = code_sums(z.double()[None], indices[None], len(sizes))
    eps = torch.finfo(z.dtype).eps
    of_sizes = 4 * eps * (wide[1] + counts[0])
    # A sum that was set again is N̂ e, of six roundings; then come those of (3).
    of_sums = 10 * eps * (old.abs() + batch[0].abs())
    # Both sums of a batch are in float64, in different orders.
    _, magnitudes = code_sums(z.double().abs()[None], indices[None], len(sizes))
    of_sums += len(z) * torch.finfo(torch.float64).eps * magnitudes[0]
    smoothed = reference.smoothed_sizes(sizes, EPSILON)[:, None]
    of_codes = (of_sums + 16 * eps * sums.abs() + codes.abs() * of_sizes[:, None]) / smoothed
    for result, expected, bound in zip(actual, (codes, sizes, sums), (of_codes, of_sizes, of_sums), strict=True):
        assert result.dtype == z.dtype
        assert ((result.double() - expected).abs() <= bound).all()
    return actual


@examples(15)
@given(
    seed=st.integers(0, 2**31),
    n=st.sampled_from([1, 5, 300]),
    size=st.sampled_from([1, 7, 70]),
    d=st.sampled_from([1, 3, 40]),
    decay=st.sampled_from([0.0, 0.5, 0.75]),
    is_cosine=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_a_step(seed: int, n: int, size: int, d: int, decay: float, is_cosine: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(seed)
    state = draw_state(size, d, dtype)
    state[0][::3] = torch.randn(d, dtype=dtype)  # set since
    assert_moved(torch.randn(n, d, dtype=dtype), torch.randint(-1, size, (n,)), state, decay, is_cosine)


def test_totals_of_more_parts_than_a_program_adds_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "PARTS", 2)
    assert_moved(torch.randn(300, 3), torch.randint(600, (300,)), draw_state(600, 3), 0.5)


@pytest.mark.parametrize("is_cosine", [False, True])
def test_codes_that_were_set_are_found(is_cosine: bool) -> None:
    """By their distance; by cosine only a direction counts, and rounding is never a change."""
    state = draw_state(6, 40)
    state[0] *= 1 + 2.0**-16 * torch.rand(6, 1)
    state[0][1] *= 1.001
    state[0][2, 33] += state[0][2].abs().max()
    state[0][3] = 0
    moved = assert_moved(torch.randn(1, 40), torch.tensor([5]), state, 0.5, is_cosine)
    kept = (moved[2] == 0.5 * state[2]).all(1).tolist()
    assert kept == [True, is_cosine, False, False, True, False]


@pytest.mark.parametrize("decay", [0.5, 1.0])
def test_a_step_that_moves_no_average_moves_no_code(decay: float) -> None:
    state = draw_state(5, 3)
    indices = torch.full((20,), -1 if decay < 1 else 2)
    for result, before in zip(step(torch.randn(20, 3), indices, state, decay, False), state, strict=True):
        assert torch.equal(result, before)
    state[0][1] = 7  # its sum follows
    moved = step(torch.randn(20, 3), indices, state, decay, False)
    assert torch.equal(moved[0], state[0])
    expected = reference.sums_of_codes(*state, EPSILON, False)
    torch.testing.assert_close(moved[2], expected)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of divisions by zero and of NaN
def test_what_is_not_finite_or_has_no_size_stays_what_it_is() -> None:
    state = draw_state(6, 3)
    state[2][0, 1], state[2][1, 2], state[0][2, 0] = torch.nan, torch.inf, torch.nan
    z, indices = torch.randn(4, 3), torch.tensor([3, 4, 5, 3])
    expected = reference.average_codes(z, indices, *state, 0.5, EPSILON, False)
    for result, right in zip(step(z, indices, state, 0.5, False), expected, strict=True):
        torch.testing.assert_close(result, right, equal_nan=True)
    empty = [state[0].nan_to_num(), torch.zeros(6), state[2].nan_to_num(posinf=1)]
    expected = reference.average_codes(z, indices, *empty, 0.5, EPSILON, False)
    for result, right in zip(step(z, indices, empty, 0.5, False), expected, strict=True):
        torch.testing.assert_close(result, right, equal_nan=True)


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")  # numpy's, of the conversion to float32
def test_a_sum_beyond_float32_is_not_taken() -> None:
    z, indices = torch.full((4, 3), 3e38), torch.tensor([0, 0, 1, -1])
    state = draw_state(3, 3)
    moved = step(z, indices, state, 0.5, False)
    assert torch.equal(moved[1], 0.5 * state[1] + torch.tensor([0, 0.5, 0]))
    assert torch.equal(moved[2][0], 0.5 * state[2][0])


def test_runs_are_bit_equal() -> None:
    z, indices, state = torch.randn(300, 5), torch.randint(70, (300,)), draw_state(70, 5)
    first, second = (step(z, indices, state, 0.9, False) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("distance", ["euclidean", "cosine", "angle"])
def test_a_quantizer_moves_as_with_the_reference(distance: str) -> None:
    """Over steps, one of them after a change of a code, and one of them without a vector that counts."""
    states = []
    for implementation in ("triton", "reference"):
        torch.manual_seed(0)
        quantizer = EMAVectorQuantizer(4, 9, decay=0.8, distance=distance).to(device())  # type: ignore[arg-type]
        with use_implementation(implementation):
            for change in (0.0, 0.3, 0.0):
                quantizer.embedding[2] += change
                quantizer(torch.randn(50, 4).to(device()))
            quantizer(torch.full((3, 4), torch.nan).to(device()))
        states.append([getattr(quantizer, name).cpu() for name in NAMES] + [quantizer._previous().cpu()])
    torch.testing.assert_close(*states)


def test_autograd_sees_that_the_state_has_changed() -> None:
    quantizer = EMAVectorQuantizer(4, 9).to(device())
    weight = torch.randn(9, 4).to(device()).requires_grad_()
    with use_implementation("triton"):
        value = (weight * quantizer.embedding).sum()
        quantizer(torch.randn(50, 4).to(device()))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


@pytest.mark.parametrize("hindrance", ["accumulate", "strides", "dtype", "decay"])
def test_other_states_move_by_the_operations_of_torch(hindrance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "average_codes_", None)
    quantizer = EMAVectorQuantizer(4, 9).to(device())
    if hindrance == "accumulate":
        quantizer.accumulate(2)
    elif hindrance == "strides":
        quantizer.embedding_sum = quantizer.embedding_sum.T.contiguous().T
    elif hindrance == "decay":
        quantizer.decay = torch.tensor(0.9)  # type: ignore[assignment]
    x = torch.randn(50, 4, dtype=torch.float64 if hindrance == "dtype" else torch.float32).to(device())
    before = quantizer.embedding.clone()
    with use_implementation("triton"):
        quantizer(x)
        quantizer(x)
    assert not torch.equal(quantizer.embedding, before)
