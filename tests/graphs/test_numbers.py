"""Numbers that a schedule moves do not make a compiled quantizer compile again and again."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from quantizers import Quantizer
from tests.cases import Case, batch, cases_where
from tests.versions import with_free_numbers

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("fresh_compiler")]

VALUES = [0.3 + step / 50 for step in range(20)]


def moving(quantizer: Quantizer) -> list[tuple[Quantizer, str]]:
    """The numbers of a quantizer and of those in it that may be assigned, with their holders."""
    parts = [part for part in quantizer.modules() if isinstance(part, Quantizer)]
    names = [name for name in Quantizer.assignable if name != "channel_dim"]
    return [(part, name) for part in parts for name in names if hasattr(part, name)]


@with_free_numbers
@pytest.mark.foundations
@cases_where(lambda case: not case.is_variation)
def test_moving_every_number_compiles_once_more(case: Case) -> None:
    """At its second value, where PyTorch makes it an input of the graph."""
    quantizer = case.build()
    if not moving(quantizer):
        return
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(quantizer, fullgraph=True, backend=counter)
    x = batch(9).requires_grad_()
    for value in VALUES:
        for holder, name in moving(quantizer):
            setattr(holder, name, value)
        compiled(x)
    assert counter.frame_count <= 2


@pytest.mark.parametrize(("name", "number"), [("ema_vq", "decay"), ("vq", "codebook_weight")])
def test_the_graph_follows_the_number(name: str, number: str) -> None:
    """What it moves is what eager mode moves, at each value."""
    compiled_one, eager = Case(name).build(), Case(name).build()
    eager.load_state_dict(compiled_one.state_dict())
    compiled = torch.compile(compiled_one, fullgraph=True, backend="aot_eager")
    for value in VALUES[:4]:
        for quantizer in (compiled_one, eager):
            setattr(quantizer, number, value)
        assert torch.equal(compiled(batch(9)).loss, eager(batch(9)).loss)
    for key, tensor in eager.state_dict().items():
        assert torch.equal(tensor, compiled_one.state_dict()[key])
