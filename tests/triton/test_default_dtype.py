"""PyTorch's default dtype, which some libraries change while they build a model, changes no result."""

import pytest
import torch

from tests.default_dtype import default_dtype
from tests.triton.calls import CALLS, assert_equal, copied
from tests.triton.interpreter import runs_kernels

pytestmark = runs_kernels


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", CALLS)
def test_no_result_depends_on_the_default_dtype(name: str, dtype: torch.dtype) -> None:
    function, arguments = CALLS[name]
    given, again = (each := arguments()), copied(each)
    expected = function.__wrapped__(*given)
    with default_dtype(dtype):
        actual = function.__wrapped__(*again)
    assert_equal(actual, expected)
    assert_equal(again, given)
