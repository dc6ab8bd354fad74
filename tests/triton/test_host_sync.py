"""9: the launchers of the Triton kernels read no value back, so that they can be captured in a CUDA graph."""

import pytest
import torch
from torch import Tensor

from tests.synchronisation import NoSynchronisation, no_reading
from tests.triton.calls import CALLS
from tests.triton.interpreter import runs_kernels

pytestmark = runs_kernels


@pytest.mark.parametrize("name", CALLS)
def test_no_launcher_reads_back(name: str) -> None:
    function, arguments = CALLS[name]
    given = arguments()
    with NoSynchronisation():
        function(*given)


@torch.library.custom_op("quantizers_tests::reads", mutates_args=())
def _reads(x: Tensor) -> Tensor:
    return x.clone() if x.sum() else x + 1


def test_a_value_that_is_read_inside_an_operation_is_found() -> None:
    with pytest.raises(AssertionError, match="__bool__ makes the host wait"), no_reading():
        _reads(torch.ones(3))
