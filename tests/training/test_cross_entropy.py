"""The cross entropy of given codes is that of the logits written out, without writing them out."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.allocations import largest_allocation
from quantizers import code_cross_entropy
from quantizers.kernels.common.dispatch import use_implementation
from tests.cases import normal
from tests.effort import examples

EPS = torch.finfo(torch.float64).eps


def plain(z: Tensor, codes: Tensor, targets: Tensor, *, temperature: float) -> Tensor:
    logits = -(z[:, None] - codes).square().sum(-1) / temperature
    return F.cross_entropy(logits, targets, ignore_index=-1, reduction="none")


def value_and_gradients(loss: Any, z: Tensor, codes: Tensor, targets: Tensor, temperature: float) -> list[Tensor]:
    """The gradients of a weighted sum: each row has its own weight."""
    inputs = [z.detach().clone().requires_grad_(), codes.detach().clone().requires_grad_()]
    value = loss(*inputs, targets, temperature=temperature)
    weights = torch.linspace(-1, 2, len(z)).to(value)
    return [value.detach(), *torch.autograd.grad(value, inputs, weights)]


@given(
    seed=st.integers(0, 2**31),
    rows=st.integers(1, 12),
    size=st.integers(1, 20),
    temperature=st.sampled_from([0.01, 0.3, 5.0]),
    spread=st.sampled_from([0.1, 1.0, 30.0]),
    offset=st.sampled_from([0.0, 1000.0]),
)
@examples(25)
def test_it_is_the_cross_entropy_of_logits_written_out(
    seed: int, rows: int, size: int, temperature: float, spread: float, offset: float
) -> None:
    """Value and both gradients; targets far from the nearest code as well as that code, and some that are none."""
    z, codes = normal(seed, rows, 3) + offset, spread * normal(seed + 1, size, 3) + offset
    targets = torch.randint(-1, size, (rows,), generator=torch.Generator().manual_seed(seed))
    found, expected = (value_and_gradients(f, z, codes, targets, temperature) for f in (code_cross_entropy, plain))
    # A logit is a sum of products up to (‖z‖ + ‖e‖)²/T, and an offset costs 1000 EPS of ‖z‖; a probability moves
    # by that, and a gradient is a sum of them times 2 (z − e)/T, over rows of weights up to 2.
    centre = codes.mean(0)
    reach = float((codes - centre).norm(dim=-1).max() + (z - centre).norm(dim=-1).max())
    logit = 8 * EPS * (reach**2 + offset * reach) / temperature + 8 * EPS * (1 + math.log(size))
    torch.testing.assert_close(found[0], expected[0], rtol=1e-13, atol=8 * logit)
    for a, b in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(
            a, b, rtol=1e-12, atol=16 * rows * (logit + offset * EPS) * (1 + reach) / temperature
        )
    assert (found[0] >= 0).all()


def test_a_large_codebook_takes_no_matrix() -> None:
    """256 vectors and 2¹⁷ codes in pieces of less than a byte an element; four rows against the matrix."""
    rows, size = 256, 2**17
    z, codes = 0.3 * normal(0, rows, 4, dtype=torch.float32), normal(1, size, 4, dtype=torch.float32)
    targets = torch.randint(size, (rows,), generator=torch.Generator().manual_seed(2))
    found: list[Tensor] = []
    work = lambda: found.extend(value_and_gradients(code_cross_entropy, z, codes, targets, 0.5))  # noqa: E731
    assert largest_allocation(work) < rows * size
    expected = plain(z[:4].double(), codes.double(), targets[:4], temperature=0.5)
    # Logits of up to 2 (2 + 5)² = 98 or so, in float32.
    torch.testing.assert_close(found[0][:4].double(), expected, rtol=0, atol=100 * 8 * 2.0**-24)


def test_one_softmax_gives_it() -> None:
    z, codes = normal(0, 5, 3).requires_grad_(), normal(1, 7, 3).requires_grad_()
    with use_implementation() as ran:
        code_cross_entropy(z, codes, torch.arange(5)).sum().backward()
    assert {name: count for (name, _), count in ran.items()} == {"soft_codes": 1, "soft_codes_backward": 1}


@pytest.mark.parametrize("far", [1e6, 1e18, 3e38])
@pytest.mark.parametrize("temperature", [1e-6, 1.0, 1e6])
def test_far_codes_and_vectors_stay_finite(far: float, temperature: float) -> None:
    z = torch.tensor([[0.0, 0.0], [far, -far], [0.0, far]])
    codes = torch.tensor([[0.0, 1.0], [far, far], [-far, 0.0]])
    for parts in value_and_gradients(code_cross_entropy, z, codes, torch.tensor([1, 2, 0]), temperature):
        assert parts.isfinite().all()


def test_rounding_makes_no_probability_above_one() -> None:
    """At codes far apart, where log Σ exp l and l_t are equal and large: zero, not less by float32's digits."""
    codes = 30 * normal(0, 500, 8, dtype=torch.float32)
    value = code_cross_entropy(codes, codes, torch.arange(500))
    assert (value >= 0).all()
    assert value.max() <= 60 * 2.0**-24 * 2 * codes.square().sum(-1).max()  # of ‖z‖² + ‖e‖², under 7 D roundings


def test_a_target_of_none_is_zero_whatever_the_vector() -> None:
    z, codes = normal(0, 4, 3), normal(1, 6, 3)
    targets = torch.tensor([2, -1, 5, -1])
    expected = value_and_gradients(code_cross_entropy, z[::2], codes, targets[::2], 1.0)[0]
    z[1], z[3] = torch.nan, torch.inf
    value, to_z, to_codes = value_and_gradients(code_cross_entropy, z, codes, targets, 1.0)
    assert torch.equal(value[::2], expected)
    assert not value[1::2].any()
    assert not to_z[1::2].any()
    assert to_codes.isfinite().all()
    assert code_cross_entropy(z[:0], codes, targets[:0]).shape == (0,)


def test_low_precision_is_computed_in_float32() -> None:
    z, codes, targets = normal(0, 4, 3).bfloat16(), normal(1, 6, 3).bfloat16(), torch.arange(4)
    expected = code_cross_entropy(z.float(), codes.float(), targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = code_cross_entropy(z, codes, targets)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_it_is_one_graph() -> None:
    arguments = normal(0, 5, 3), normal(1, 7, 3), torch.tensor([0, 6, -1, 3, 2]), 0.5
    compiled = torch.compile(code_cross_entropy, fullgraph=True, backend="aot_eager")
    found, expected = (value_and_gradients(f, *arguments) for f in (compiled, code_cross_entropy))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-14, atol=1e-14)  # the same operations, in float64


Z, CODES, TARGETS = torch.zeros(4, 3), torch.zeros(6, 3), torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((Z[0], CODES, TARGETS), ValueError, r"z has shape \(3,\), expected \[N, D\]"),
        ((Z, CODES[:, :2], TARGETS), ValueError, "got 3 channels in z but 2 in codes; expected equal numbers"),
        ((Z, CODES[:0], TARGETS), ValueError, "expected at least one code"),
        ((Z.long(), CODES, TARGETS), TypeError, r"z has dtype torch.int64, expected a floating dtype"),
        ((Z, CODES, TARGETS[:3]), ValueError, r"targets have shape \(3,\), expected \(4,\), one per row of z"),
        ((Z, CODES, TARGETS.int()), TypeError, "targets have dtype torch.int32, expected torch.int64"),
        ((Z, CODES, TARGETS + 6), IndexError, "targets range from 6 to 6, expected 0 to 5, or −1 for none"),
        ((Z, CODES, TARGETS - 2), IndexError, "targets range from -2 to -2"),
    ],
)
def test_arguments_that_do_not_fit_are_named(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        code_cross_entropy(*arguments)


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.inf, math.nan])
def test_a_temperature_that_is_none_is_named(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"temperature is .*, expected a finite number above 0"):
        code_cross_entropy(Z, CODES, TARGETS, temperature=wrong)
