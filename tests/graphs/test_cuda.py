"""9: on a CUDA device nothing waits for it; forward, backward, encode and decode are captured in CUDA graphs."""

import copy
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from torch import Tensor

from tests.cases import Case, assert_same_state, batch, cases_where, every_case, state_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture
def _waiting_is_an_error() -> Iterator[None]:
    yield
    torch.cuda.set_sync_debug_mode("default")


def captured(function: Callable[[], Sequence[Tensor]]) -> tuple[torch.cuda.CUDAGraph, Sequence[Tensor]]:
    """A graph of the function and where its results will lie; it has run twice before, to load its kernels."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = function()
    return graph, results


@pytest.mark.foundations
@pytest.mark.usefixtures("_waiting_is_an_error")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")  # torch's, of the mode itself
@every_case
def test_no_step_waits_for_the_device(case: Case) -> None:
    quantizer, x = case.build().cuda(), batch(50).cuda().requires_grad_()
    for mode in ("default", "error"):  # the first loads kernels, which may wait
        torch.cuda.set_sync_debug_mode(mode)
        out = quantizer(x)
        (out.quantized.sum() + out.loss).backward()
        quantizer.encode(x)


@pytest.mark.foundations
@every_case
def test_a_captured_step_is_the_step(case: Case) -> None:
    quantizer, x = case.build().cuda(), batch(50).cuda().requires_grad_()

    def step(quantizer: torch.nn.Module = quantizer) -> list[Tensor]:
        out = quantizer(x)
        gradients = torch.autograd.grad(out.quantized.sum() + out.loss, x)
        # Detached: results that kept the captured graph alive would keep x's node of it, which belongs to the
        # stream of the capture, and the eager step would use that node on another stream.
        return [*(result.detach() for result in out), *gradients]

    graph, results = captured(step)
    eager = copy.deepcopy(quantizer)
    with torch.no_grad():
        x.copy_(batch(50, seed=1))
    graph.replay()
    if case.sample.draws_in_training:  # by other numbers than eager mode's
        assert (results[1] >= 0).all()
        return
    for a, b in zip(results, step(eager), strict=True):
        assert torch.equal(a, b)
    assert_same_state(state_of(quantizer), state_of(eager))


@pytest.mark.foundations
@cases_where(lambda case: case.has_codes)
def test_encode_and_decode_are_captured(case: Case) -> None:
    quantizer, x = case.build().cuda(), batch(50).cuda()

    def through() -> list[Tensor]:
        indices = quantizer.encode(x)
        return [indices, quantizer.decode(indices)]

    graph, results = captured(through)
    x.copy_(batch(50, seed=1))
    graph.replay()
    for a, b in zip(results, through(), strict=True):
        assert torch.equal(a, b)
