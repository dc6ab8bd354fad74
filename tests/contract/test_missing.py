"""Vectors that do not count: masked, or not finite."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.cases import (
    DIM,
    Case,
    assert_same_state,
    batch,
    cases_where,
    every_case,
    indices_for,
    modes,
    rounding_tolerance,
    seeded,
    state_of,
)
from tests.effort import for_each_case

pytestmark = pytest.mark.usefixtures("implementation")

# 5: masks


masks = st.lists(st.booleans(), min_size=1, max_size=20).map(torch.tensor)


@every_case
@for_each_case
@given(mask=masks, training=st.booleans(), garbage=st.sampled_from([1e30, torch.nan, torch.inf, -torch.inf]))
def test_what_stands_under_a_mask_leaves_no_trace(
    case: Case, mask: Tensor, training: bool, garbage: float
) -> None:
    """Neither in what comes back, nor in a gradient, nor in state: bit for bit what zeros there would give."""
    torch.manual_seed(0)
    quantizers = [case.build().train(training)]
    quantizers.append(copy.deepcopy(quantizers[0]))
    results = []
    for quantizer, padding in zip(quantizers, [garbage, 0.0], strict=True):
        x = batch(len(mask)).where(mask[:, None], padding).requires_grad_()
        out = seeded(quantizer, x, mask)
        (out.quantized.square().sum() + out.loss).backward()
        gradients = [p.grad for p in quantizer.parameters() if p.grad is not None]
        results.append([*out, x.grad, *gradients, *state_of(quantizer).values()])
        assert (out.indices[~mask] == -1).all()
        assert (out.quantized[~mask] == 0).all()
        assert (x.grad[~mask] == 0).all()
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert all(tensor.isfinite().all() for tensor in results[0])


# Not where a projection rounds in an order that may depend on the number of rows.
@cases_where(lambda case: not case.multiplies)
@for_each_case
@given(mask=masks, training=st.booleans())
def test_a_masked_batch_is_the_batch_of_its_unmasked_vectors(case: Case, mask: Tensor, training: bool) -> None:
    # Random draws for one row shift those for the rows after it.
    training = training and not case.sample.draws_in_training
    whole = case.build().train(training)
    part = copy.deepcopy(whole)
    x = batch(len(mask))
    masked, dense = whole(x, mask), part(x[mask])
    assert torch.equal(masked.indices[mask], dense.indices)
    assert ((masked.quantized[mask] - dense.quantized).abs() <= rounding_tolerance(whole)).all()
    torch.testing.assert_close(masked.loss, dense.loss)
    for name, value in state_of(part).items():
        torch.testing.assert_close(state_of(whole)[name], value, rtol=1e-6, atol=1e-7)


@every_case
@modes
def test_all_masked(case: Case, training: bool) -> None:
    quantizer = case.build().train(training)
    before = state_of(quantizer)
    x = batch(6).requires_grad_()
    out = quantizer(x, torch.zeros(6, dtype=torch.bool))
    assert (out.indices == -1).all()
    assert (out.quantized == 0).all()
    assert out.loss == 0
    (out.quantized.sum() + out.loss).backward()
    assert (x.grad == 0).all()
    assert_same_state(before, state_of(quantizer))


@cases_where(lambda case: case.has_codes)
def test_decode_of_no_code_is_zero(case: Case) -> None:
    quantizer = case.build()
    decoded = quantizer.decode(indices_for(quantizer, torch.tensor([[-1, 3]])))
    assert (decoded[0, 0] == 0).all()
    assert (decoded[0, 1] != 0).any()


# 6: vectors that are not finite


@every_case
@for_each_case
@given(data=st.data(), training=st.booleans())
def test_garbage_is_marked_and_touches_nothing(case: Case, data: st.DataObject, training: bool) -> None:
    rows = data.draw(st.integers(1, 12))
    bad = torch.tensor(data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows)))
    value = data.draw(st.sampled_from([torch.nan, torch.inf, -torch.inf]))
    channel = data.draw(st.integers(0, DIM - 1))
    torch.manual_seed(0)
    quantizer = case.build().train(training)
    masked = copy.deepcopy(quantizer)
    x = batch(rows)
    x[bad, channel] = value
    x.requires_grad_()

    out, expected = seeded(quantizer, x), seeded(masked, x.detach(), ~bad)
    assert torch.equal(out.indices, expected.indices)
    assert out.quantized[bad].isnan().all()
    assert torch.equal(out.quantized[~bad], expected.quantized[~bad])
    assert torch.equal(out.loss, expected.loss)
    assert_same_state(state_of(quantizer), state_of(masked))
    assert all(tensor.isfinite().all() for tensor in state_of(quantizer).values())
    out.loss.backward() if out.loss.requires_grad else None
    assert x.grad is None or x.grad.isfinite().all()
