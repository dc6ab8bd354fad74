"""`accumulate(n)`: averages move once in n forwards, as for one batch of all vectors."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from quantizers import EMAVectorQuantizer, Quantizer
from tests.cases import DIM, Case, assert_same_state, batch, cases_where, state_of

pytestmark = pytest.mark.methods

averaged = cases_where(lambda case: case.moving_averages > 0 and not case.sample.draws_in_training)


def assert_near(a: Quantizer, b: Quantizer, terms: int) -> None:
    """Up to the order of summation of that many float32 terms of size one."""
    for name, value in state_of(a).items():
        torch.testing.assert_close(value, state_of(b)[name], rtol=1e-5, atol=terms * 2.0**-23)


@averaged
@pytest.mark.parametrize("forwards", [2, 3])
def test_n_forwards_are_one_of_all_vectors(case: Case, forwards: int) -> None:
    quantizer = case.build()
    quantizer(batch(40, seed=9))
    whole = copy.deepcopy(quantizer)
    assert quantizer.accumulate(forwards) is quantizer
    for step in range(2):
        shares = [batch(20 + 7 * share, seed=10 * step + share) for share in range(forwards)]
        for share in shares[:-1]:
            before = state_of(quantizer)
            quantizer(share)
            assert_same_state(state_of(quantizer), before)  # nothing moves in between
        quantizer(shares[-1])
        whole(torch.cat(shares))
        assert_near(quantizer, whole, sum(map(len, shares)))
        whole.load_state_dict(quantizer.state_dict())  # so that ties do not add up


@given(sizes=st.lists(st.integers(0, 12), min_size=2, max_size=5), seed=st.integers(0, 99))
def test_any_split_of_a_batch(sizes: list[int], seed: int) -> None:
    """Empty forwards, masked ones and vectors that are not finite included."""
    quantizer = EMAVectorQuantizer(DIM, 6, decay=0.5)
    whole, x = copy.deepcopy(quantizer), batch(sum(sizes), seed=seed)
    x[::5] = torch.nan
    mask = torch.arange(len(x)) % 3 != 1
    quantizer.accumulate(len(sizes))
    for share, counts in zip(torch.split(x, sizes), torch.split(mask, sizes), strict=True):
        quantizer(share, counts)
    whole(x, mask)
    assert_near(quantizer, whole, len(x))


def test_recomputation_gathers_nothing_and_sees_the_same_codes() -> None:
    quantizer = EMAVectorQuantizer(DIM, 6)
    plain = copy.deepcopy(quantizer.accumulate(2))
    for seed in range(4):
        x = batch(20, seed=seed).requires_grad_()
        ours: Tensor = checkpoint(lambda x: quantizer(x).loss, x, use_reentrant=False)
        ours.backward()
        y = x.detach().clone().requires_grad_()
        plain(y).loss.backward()
        assert torch.equal(x.grad, y.grad)
        assert_same_state(state_of(quantizer), state_of(plain))


@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_steps_are_the_same() -> None:
    quantizer = EMAVectorQuantizer(DIM, 6).accumulate(3)
    other = copy.deepcopy(quantizer)
    compiled = torch.compile(other, backend="aot_eager", fullgraph=True)
    for seed in range(7):
        quantizer(batch(20, seed=seed))
        compiled(batch(20, seed=seed))
        assert_same_state(state_of(quantizer), state_of(other))


def test_one_forward_a_step_again() -> None:
    quantizer = EMAVectorQuantizer(DIM, 6).accumulate(3)
    quantizer(batch(20))
    quantizer.accumulate(1)
    other = EMAVectorQuantizer(DIM, 6)
    other.load_state_dict(quantizer.state_dict())
    quantizer(batch(20, seed=1))
    other(batch(20, seed=1))
    assert_same_state(state_of(quantizer), state_of(other))


@pytest.mark.parametrize("forwards", [0, -1, 1.5, True])
def test_wrong_numbers_are_named(forwards: object) -> None:
    with pytest.raises(ValueError, match="forwards is"):
        EMAVectorQuantizer(DIM, 6).accumulate(forwards)  # type: ignore[arg-type]
