"""The warning about unused codes: when it comes, that it comes once, and that it disturbs nothing."""

import copy
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import quantizers
from quantizers import VectorQuantizer, warn_unused_codes
from quantizers.core import unused_codes
from tests.cases import Case, batch, cases_where, state_of
from tests.synchronisation import NoSynchronisation


@pytest.fixture(autouse=True)
def _on() -> Iterator[None]:
    warn_unused_codes()
    yield
    warn_unused_codes(False)


def dying(size: int = 21) -> VectorQuantizer:
    """A quantizer of numbers; `numbers` uses the first codes."""
    return VectorQuantizer(1, codebook=torch.arange(float(size))[:, None])


def numbers(count: int, used: int = 1) -> Tensor:
    return (torch.arange(count) % used)[:, None].float()


def run(quantizer: nn.Module, x: Tensor, forwards: int) -> list[str]:
    """The warnings of so many forwards."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(forwards):
            quantizer(x)
    return [str(each.message) for each in caught]


def test_it_comes_once_with_the_numbers_and_the_remedy() -> None:
    assert run(dying(), numbers(10), 599) == []
    (message,) = run(dying(), numbers(10), 2000) + run(dying(), numbers(10), 2000)
    assert message.startswith("VectorQuantizer used 1 of 21 codes in its last 100 training forwards, with 1000 ")
    assert "quantizers.DeadCodeReplacement(model, optimizer)" in message
    assert "docs/troubleshooting.md#dead-codes" in message
    assert "quantizers.warn_unused_codes(False)" in message


def test_it_can_be_switched_off_and_on() -> None:
    warn_unused_codes(False)
    assert run(dying(), numbers(10), 700) == []
    warn_unused_codes()
    assert len(run(dying(), numbers(10), 700)) == 1


@pytest.mark.parametrize(
    ("quantizer", "x"),
    [
        (dying(), numbers(10, used=2)),  # 2 of 21 are 9 %
        (dying(size=19), numbers(10)),  # 1 of 19 is above 5 %
        (dying(size=101), numbers(10)),  # 1000 vectors are fewer than ten per code
        (dying().eval(), numbers(10)),
        (dying().freeze(), numbers(10)),
        (quantizers.FSQ(1, (32,)), numbers(10)),
        (quantizers.create("lfq", 8, 2**8), torch.ones(60, 8)),
    ],
)
def test_it_does_not_come(quantizer: nn.Module, x: Tensor) -> None:
    """Evaluation, frozen codes and grids never warn, and neither do too few vectors."""
    assert run(quantizer, x, 700) == []


def test_a_collapse_that_comes_later_is_seen() -> None:
    quantizer = dying()
    assert run(quantizer, numbers(42, used=21), 700) == []
    assert len(run(quantizer, numbers(10), 1000)) == 1


def test_the_codebook_is_named_where_there_are_several() -> None:
    quantizer = quantizers.GroupedQuantizer(2, [dying(size=4), dying()])
    (message,) = run(quantizer, torch.cat([numbers(10, used=4), numbers(10)], 1), 700)
    assert message.startswith("Codebook 1 of GroupedQuantizer used 1 of 21 codes")


def test_a_shared_codebook_counts_once() -> None:
    stage = dying()
    quantizer = quantizers.GroupedQuantizer(2, [stage, stage])
    assert run(quantizer, torch.cat([numbers(10), 1 + numbers(10)], 1), 700) == []
    (message,) = run(quantizer, torch.zeros(10, 2), 1000)
    assert message.startswith("GroupedQuantizer used 1 of 21 codes")


def test_masked_vectors_and_recomputed_forwards_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unused_codes, "FIRST", 0)
    quantizer, x = dying(), numbers(10).requires_grad_()
    quantizer(x, torch.arange(10) > 10)
    (seen,) = unused_codes._seen.values()
    assert not seen.used[0][1:].any()
    vectors = seen.vectors
    checkpoint(lambda x: quantizer(x).quantized, x, use_reentrant=False).sum().backward()
    assert seen.vectors == vectors + 10


@pytest.mark.methods
@cases_where(lambda case: case.has_codes)
def test_nothing_but_the_warning_changes(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs, state and random numbers are the same bits, counted or not; a pickle knows nothing of it."""
    monkeypatch.setattr(unused_codes, "FIRST", 0)
    results: list[Any] = []
    built = case.build()
    for enabled in (True, False):
        warn_unused_codes(enabled)
        quantizer = copy.deepcopy(built)
        torch.manual_seed(0)
        outputs = [quantizer(batch(20, seed=seed)) for seed in range(3)]
        results.append((outputs, state_of(quantizer), torch.get_rng_state(), vars(quantizer).keys()))
    for one, other in zip(results[0][0], results[1][0], strict=True):
        assert all(map(torch.equal, one, other))
    assert all(torch.equal(one, other) for one, other in zip(*(each[1].values() for each in results), strict=True))
    assert torch.equal(results[0][2], results[1][2])
    assert results[0][3] == results[1][3]


@pytest.mark.filterwarnings("ignore")  # the tracer's and the compiler's own
def test_graphs_and_traces_do_not_count(fresh_compiler: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unused_codes, "FIRST", 0)
    quantizer, x = dying(), numbers(10)
    torch.compile(quantizer, backend="eager", fullgraph=True)(x)
    torch.export.export(quantizer, (x,))
    assert not unused_codes._seen
    torch.vmap(lambda x: quantizer(x).quantized)(x[None])
    torch.func.grad(lambda x: quantizer(x).quantized.sum())(x)
    torch.jit.trace(quantizer, x, check_trace=False)
    with NoSynchronisation():
        quantizer(x)
    (seen,) = unused_codes._seen.values()
    assert not seen.vectors


def test_a_quantizer_is_not_kept_alive() -> None:
    dying()(numbers(10))
    assert not unused_codes._seen
