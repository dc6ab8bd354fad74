"""9: no host synchronisation in forward, backward and encode, seen from outside of the registered operations.

That their Triton implementations read nothing back either is tested in tests/triton/test_host_sync.py.
"""

import pytest
import torch

from tests.cases import Case, batch, every_case, modes
from tests.synchronisation import NoSynchronisation


@pytest.mark.methods
@every_case
@modes
def test_nothing_is_read_back(case: Case, training: bool) -> None:
    quantizer = case.build().train(training)
    x, mask = batch(20).requires_grad_(), torch.rand(20) > 0.5
    with NoSynchronisation():
        out = quantizer(x, mask)
        (out.quantized.sum() + out.loss).backward()
        quantizer.encode(x)


@pytest.mark.parametrize(
    "reads",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).any()),
        lambda x: x[x > 0],
        lambda x: (x > 0).nonzero(),
        lambda x: x.masked_select(x > 0),
        lambda x: torch.equal(x, x),
        lambda x: x.unique(),
        lambda x: x.index_put((x > 0,), x.new_zeros(())),
    ],
)
def test_reading_back_is_seen(reads: object) -> None:
    with pytest.raises(AssertionError, match="makes the host wait"), NoSynchronisation():
        reads(torch.randn(5))  # type: ignore[operator]
