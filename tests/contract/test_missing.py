"""Vectors that do not count: masked, or not finite."""

import copy

import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cases import DIM, Case, assert_same_state, batch, cases_where, every_case, modes, seeded, state_of

# 5: masks


@every_case
@given(data=st.data(), training=st.booleans())
def test_masked_vectors_leave_no_trace(case: Case, data: st.DataObject, training: bool) -> None:
    """A masked batch is the batch of its unmasked vectors, whatever stands under the mask."""
    mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=1, max_size=20)))
    garbage = data.draw(st.sampled_from([0.0, 1e30, torch.nan, torch.inf]))
    torch.manual_seed(0)
    whole = case.build().train(training)
    part = copy.deepcopy(whole)
    x = batch(len(mask))
    padded = torch.where(mask[:, None], x, garbage).requires_grad_()
    kept = x[mask].requires_grad_()
    masked, dense = seeded(whole, padded, mask), seeded(part, kept)

    assert (masked.indices[~mask] == -1).all()
    assert (masked.quantized[~mask] == 0).all()
    if not (case.samples and training):  # there the draws of the rows before move those of the rows after
        assert torch.equal(masked.indices[mask], dense.indices)
        torch.testing.assert_close(masked.quantized[mask], dense.quantized, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(masked.loss, dense.loss)
        for name, value in state_of(part).items():
            torch.testing.assert_close(state_of(whole)[name], value, rtol=1e-6, atol=1e-7)
    (masked.quantized.square().sum() + masked.loss).backward()
    assert (padded.grad[~mask] == 0).all()
    assert padded.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in whole.parameters())


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
    decoded = case.build().decode(torch.tensor([[-1, 3]]))
    assert (decoded[0, 0] == 0).all()
    assert (decoded[0, 1] != 0).any()


# 6: vectors that are not finite


@every_case
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
