"""The same in training and evaluation; state moves once a step, and travels whole."""

import copy
import pickle

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from tests.cases import Case, assert_same_state, batch, every_case, seeded, state_of

pytestmark = pytest.mark.usefixtures("implementation")

# 4: the same in training and evaluation; state moves once a step


@every_case
def test_loss_is_the_same_in_both_modes(case: Case) -> None:
    quantizer = case.build()
    x = batch(50)
    evaluated = copy.deepcopy(quantizer).eval()(x)
    trained = quantizer(x)
    if not quantizer.same_loss_in_training:
        return
    assert torch.equal(evaluated.loss, trained.loss)
    if not quantizer.draws_in_training:
        assert torch.equal(evaluated.indices, trained.indices)
    if not quantizer.draws_in_training and quantizer.value_is_code:
        assert torch.equal(evaluated.quantized, trained.quantized)


@every_case
@pytest.mark.parametrize("grad", [True, False], ids=["grad", "no_grad"])
def test_evaluation_and_encode_change_nothing(case: Case, grad: bool) -> None:
    quantizer = case.build().eval()
    before, generator = state_of(quantizer), torch.get_rng_state()
    with torch.set_grad_enabled(grad):
        quantizer(batch(30))
        quantizer.encode(batch(30))
        quantizer.train().encode(batch(30))
    assert_same_state(before, state_of(quantizer))
    assert torch.equal(generator, torch.get_rng_state())


@every_case
@pytest.mark.parametrize("reentrant", [True, False], ids=["reentrant", "non-reentrant"])
def test_checkpointing_moves_state_once_and_keeps_gradients(case: Case, reentrant: bool) -> None:
    plain = case.build()
    checkpointed = copy.deepcopy(plain)
    inputs = [batch(30).requires_grad_(), batch(30).requires_grad_()]

    out = seeded(plain, inputs[0])
    (out.quantized.square().sum() + out.loss).backward()

    torch.manual_seed(7)
    quantized, _, loss = checkpoint(checkpointed, inputs[1], use_reentrant=reentrant)
    (quantized.square().sum() + loss).backward()

    assert_same_state(state_of(plain), state_of(checkpointed))
    assert torch.equal(inputs[0].grad, inputs[1].grad)


@every_case
def test_checkpointing_sees_codes_that_were_loaded_and_frozen(case: Case) -> None:
    plain = case.build()
    plain.load_state_dict(case.build().state_dict())
    checkpointed = copy.deepcopy(plain.freeze())
    inputs = [batch(30).requires_grad_(), batch(30).requires_grad_()]

    out = seeded(plain, inputs[0])
    (out.quantized.square().sum() + out.loss).backward()

    torch.manual_seed(7)
    quantized, _, loss = checkpoint(checkpointed, inputs[1], use_reentrant=False)
    (quantized.square().sum() + loss).backward()

    assert torch.equal(inputs[0].grad, inputs[1].grad)


@every_case
def test_copies_and_state_dict_continue_alike(case: Case) -> None:
    quantizer = case.build()
    quantizer(batch(30))
    fresh = case.build()
    fresh.load_state_dict(quantizer.state_dict(), strict=True)
    copies = [copy.deepcopy(quantizer), pickle.loads(pickle.dumps(quantizer)), fresh]
    expected = seeded(quantizer, batch(30, seed=1))
    for other in copies:
        actual = seeded(other, batch(30, seed=1))
        assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))
        assert_same_state(state_of(quantizer), state_of(other))
