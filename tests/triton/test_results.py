"""Results of launchers have memory of their own, as the results of registered operations must."""

import pytest
from torch import Tensor

from quantizers.kernels.common.triton.replay import FIRST
from tests.triton.calls import CALLS
from tests.triton.interpreter import runs_kernels

pytestmark = runs_kernels


def memories(tensors: object) -> list[int]:
    """Where the memory of each tensor begins that has any."""
    several = tensors if isinstance(tensors, (tuple, list)) else (tensors,)
    found = [each for each in several if isinstance(each, Tensor) and each.numel()]
    return [each.untyped_storage().data_ptr() for each in found]


@pytest.mark.parametrize("name", CALLS)
def test_no_result_shares_memory(name: str) -> None:
    """Neither with an argument nor with another result, nor once the call is repeated."""
    function, arguments = CALLS[name]
    for _ in range(FIRST + 2):
        given = arguments()
        result = function(*given)
        used = memories(result)
        assert len(set(used)) == len(used)
        assert not set(used) & set(memories(given))
