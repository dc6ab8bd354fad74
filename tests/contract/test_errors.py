"""Errors are sentences."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cases import DIM, SIZE, Case, batch, cases_where, every_case, indices_for
from tests.effort import for_each_case

pytestmark = pytest.mark.usefixtures("implementation")

# 12: errors are sentences


@every_case
def test_wrong_input_is_named(case: Case) -> None:
    quantizer = case.build()
    with pytest.raises(ValueError, match=r"x has 7 channels on axis -1 .*expected dim=4"):
        quantizer(torch.zeros(2, 7))
    with pytest.raises(TypeError, match=r"x has dtype torch.int64, expected a floating dtype"):
        quantizer(torch.zeros(2, DIM, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"mask has shape \(3,\), expected .*\(2,\)"):
        quantizer(torch.zeros(2, DIM), torch.ones(3, dtype=torch.bool))
    with pytest.raises(TypeError, match=r"mask has dtype torch.float32, expected torch.bool"):
        quantizer(torch.zeros(2, DIM), torch.ones(2))
    quantizer.channel_dim = 1
    with pytest.raises(ValueError, match=r"no axis channel_dim=1"):
        quantizer(torch.zeros(DIM))


@cases_where(lambda case: case.has_codes)
@for_each_case
@given(index=st.one_of(st.integers(-(2**63), -2), st.integers(SIZE * 1000, 2**63 - 1)))
def test_index_out_of_range_is_an_error(case: Case, index: int) -> None:
    quantizer = case.build()
    if quantizer.codebook_size > index >= 0:
        index = quantizer.codebook_size
    with pytest.raises(IndexError, match=f"{index}.*expected 0 to"):
        quantizer.decode(indices_for(quantizer, torch.tensor([0, index])))


@cases_where(lambda case: case.has_codes)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.uint16])
def test_indices_may_be_stored_small(case: Case, dtype: torch.dtype) -> None:
    quantizer = case.build()
    indices = indices_for(quantizer, torch.arange(8))
    assert torch.equal(quantizer.decode(indices.to(dtype)), quantizer.decode(indices))


@cases_where(lambda case: case.has_codes)
def test_indices_must_be_integers(case: Case) -> None:
    with pytest.raises(TypeError, match=r"indices have dtype torch.float32, expected an integer dtype"):
        case.build().decode(torch.zeros(2))


@every_case
@pytest.mark.parametrize("dim", [0, -1, 2.5, True])
def test_sizes_are_checked(case: Case, dim: object) -> None:
    with pytest.raises(ValueError, match=f"dim is {dim!r}, expected an integer of at least 1"):
        case.build(dim=dim)


def test_identity_says_that_it_has_no_codes() -> None:
    quantizer = Case("none").build()
    assert (quantizer(batch(3)).indices == -1).all()
    with pytest.raises(ValueError, match="has no codebook"):
        _ = quantizer.codebook
    with pytest.raises(ValueError, match="nothing to decode"):
        quantizer.decode(torch.tensor([-1]))
