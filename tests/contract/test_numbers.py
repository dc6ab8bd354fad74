"""Which code, and in which precision."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cases import (
    DIM,
    Case,
    assert_same_state,
    batch,
    cases_where,
    every_case,
    modes,
    rounding_tolerance,
    seeded,
    state_of,
)
from tests.effort import examples, for_each_case

pytestmark = pytest.mark.usefixtures("implementation")

# 7: the nearest code, wherever a vector lies (tests/kernels/test_nearest.py tests that the search is exact)


# The rounding of a matrix product may depend on the batch.
@cases_where(lambda case: case.has_codes and not case.multiplies)
@examples(10)  # each example encodes 24 vectors one by one
@given(seed=st.integers(0, 99), offset=st.sampled_from([0.0, 1.0, 1000.0]))
def test_index_does_not_depend_on_the_batch(case: Case, seed: int, offset: float) -> None:
    quantizer = case.build().eval()
    x = batch(24, seed=seed) + offset
    together = quantizer.encode(x)
    order = torch.randperm(24)
    assert torch.equal(quantizer.encode(x[order]), together[order])
    alone = torch.stack([quantizer.encode(vector) for vector in x])
    assert torch.equal(alone, together)


# 8: precision


@every_case
@for_each_case
@given(seed=st.integers(0, 99), dtype=st.sampled_from([torch.bfloat16, torch.float16]))
def test_half_precision_input_is_its_own_value(case: Case, seed: int, dtype: torch.dtype) -> None:
    """A half input gives what its values give in float32, rounded once at the end."""
    torch.manual_seed(0)
    quantizer = case.build()
    other = copy.deepcopy(quantizer)
    x = batch(30, dtype=dtype, seed=seed)
    half, full = seeded(quantizer, x), seeded(other, x.float())
    assert torch.equal(half.indices, full.indices)
    assert torch.equal(half.quantized, full.quantized.to(dtype))
    assert torch.equal(half.loss, full.loss)
    assert_same_state(state_of(quantizer), state_of(other))


@every_case
@modes
def test_autocast_changes_nothing(case: Case, training: bool) -> None:
    quantizer = case.build().train(training)
    other = copy.deepcopy(quantizer)
    expected = seeded(quantizer, batch(30))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = seeded(other, batch(30))
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))
    assert_same_state(state_of(quantizer), state_of(other))


@every_case
@pytest.mark.parametrize("cast", [torch.nn.Module.half, torch.nn.Module.bfloat16], ids=["half", "bfloat16"])
def test_state_stays_in_float32(case: Case, cast) -> None:  # type: ignore[no-untyped-def]
    quantizer = case.build()
    before = state_of(quantizer)
    model = cast(torch.nn.Sequential(torch.nn.Linear(DIM, DIM), quantizer))
    assert model[0].weight.dtype != torch.float32
    assert_same_state(before, state_of(quantizer))
    assert model(batch(3).to(model[0].weight.dtype)).quantized.dtype == model[0].weight.dtype


@every_case
def test_float64_all_the_way(case: Case) -> None:
    quantizer = case.build().double()
    assert all(t.dtype == torch.float64 for t in state_of(quantizer).values() if t.is_floating_point())
    out = quantizer.eval()(batch(20).double())
    assert out.loss.dtype == torch.float64
    if case.has_codes:
        assert quantizer.decode(out.indices).dtype == torch.float64
        gap = (quantizer.decode(out.indices) - out.quantized).abs().max()
        assert gap <= rounding_tolerance(quantizer)
