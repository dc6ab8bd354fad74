"""How many collectives a step takes: one for moving averages, two for a loss of all ranks; the same compiled."""

import contextlib
import copy
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from quantizers import Quantizer
from tests.cases import CASES, Case, assert_same_state, batch, seeded, state_of
from tests.distributed.autoencoder import EMA_CASES
from tests.distributed.ranks import Ranks, World

State = dict[str, Tensor]
STEPS = 3


class Collectives(TorchDispatchMode):
    """Counts the operations of torch.distributed in a block."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.namespace in ("c10d", "_c10d_functional"):
            self.counts[function.name()] += 1
        return function(*args, **(kwargs or {}))


def built(case: Case) -> Quantizer:
    torch.manual_seed(0)
    return case.build()


def count(world: World) -> list[dict[str, Counter[str]]]:
    with world.joined():
        return [collectives_of(built(case), batch(20, seed=world.rank)) for case in CASES]


def collectives_of(quantizer: Quantizer, x: Tensor) -> dict[str, Counter[str]]:
    counts = {}
    with Collectives() as training:
        out = quantizer(x.requires_grad_())
        (out.quantized.sum() + out.loss).backward()
    counts["training"] = training.counts
    with Collectives() as encoding, torch.no_grad():
        quantizer.encode(x)
    counts["encode in training mode"] = encoding.counts
    with Collectives() as evaluation, torch.no_grad():
        quantizer.eval()(x)
    counts["evaluation"] = evaluation.counts
    return counts


def test_a_step_takes_few_all_reduces_and_the_rest_none(ranks: Ranks) -> None:
    """One for moving averages; one in forward and one in backward for a loss that the ranks share."""
    for counts_of_rank in ranks.run(2, count):
        for case, counts in zip(CASES, counts_of_rank, strict=True):
            expected = case.moving_averages + 2 * case.shared_losses
            assert counts["training"] == Counter({"c10d::allreduce_": expected}), f"{case}: {counts}"
            assert not counts["evaluation"], f"{case}: {counts}"
            assert not counts["encode in training mode"], f"{case}: {counts}"


def checkpointed(world: World, reentrant: bool) -> list[tuple[State, State, Tensor, Tensor, Counter[str]]]:
    """For each case: the state and x's gradient, plain and checkpointed, and the collectives of the latter."""
    with world.joined():
        return [plain_and_checkpointed(built(case), world, reentrant) for case in CASES]


def plain_and_checkpointed(
    quantizer: Quantizer, world: World, reentrant: bool
) -> tuple[State, State, Tensor, Tensor, Counter[str]]:
    other = copy.deepcopy(quantizer)
    inputs = [batch(20, seed=world.rank).requires_grad_() for _ in range(2)]
    out = seeded(quantizer, inputs[0])
    (out.quantized.square().sum() + out.loss).backward()
    torch.manual_seed(7)
    with Collectives() as collectives:
        quantized, _, loss = checkpoint(other, inputs[1], use_reentrant=reentrant)
        (quantized.square().sum() + loss).backward()
    return state_of(quantizer), state_of(other), inputs[0].grad, inputs[1].grad, collectives.counts


@pytest.mark.parametrize("reentrant", [True, False], ids=["reentrant", "non-reentrant"])
def test_the_second_forward_of_checkpointing_moves_no_average(ranks: Ranks, reentrant: bool) -> None:
    """Nor reduces for it. A loss that the ranks share is recomputed, on all of them alike."""
    for results in ranks.run(2, checkpointed, reentrant):
        for case, (plain, other, gradient, other_gradient, counts) in zip(CASES, results, strict=True):
            expected = case.moving_averages + 3 * case.shared_losses
            assert counts.total() == expected, f"{case}: {counts}"
            assert_same_state(plain, other)
            assert torch.equal(gradient, other_gradient), f"{case}: the gradient differs"


def compiled(world: World) -> list[list[tuple[State, Tensor]]]:
    """For each EMA case: the state and the indices after each of three steps, eager and then compiled."""
    with world.joined():
        return [eager_and_compiled(case, world) for case in EMA_CASES]


def eager_and_compiled(case: Case, world: World) -> list[tuple[State, Tensor]]:
    eager = built(case)
    traced = copy.deepcopy(eager)
    results = []
    for quantizer, run in ((eager, eager), (traced, in_one_graph(traced))):
        for step in range(STEPS):
            indices = run(batch(20, seed=10 * step + world.rank)).indices
            results.append((state_of(quantizer), indices))
    return results


def in_one_graph(quantizer: Quantizer) -> Any:
    torch.compiler.reset()
    return torch.compile(quantizer, fullgraph=True, backend="aot_eager")


@pytest.mark.long("an end-to-end run")
def test_a_compiled_step_is_the_eager_one(ranks: Ranks) -> None:
    """Bit for bit, the all-reduce in the graph."""
    results = ranks.run(2, compiled)
    for case, *steps_of_ranks in zip(EMA_CASES, *results, strict=True):
        for rank, steps in enumerate(steps_of_ranks):
            for (eager, indices), (traced, traced_indices) in zip(steps[:STEPS], steps[STEPS:], strict=True):
                assert torch.equal(indices, traced_indices), f"{case}, rank {rank}: indices differ"
                for name, value in eager.items():
                    assert torch.equal(value, traced[name]), f"{case}, rank {rank}: {name} differs"
        assert_same_state(steps_of_ranks[0][-1][0], steps_of_ranks[1][-1][0])


def compiled_before_the_group(world: World) -> list[State]:
    """Steps alone, in a group, alone, and in another group, by one compiled quantizer."""
    quantizer = built(Case("ema_vq"))
    run, states = in_one_graph(quantizer), []
    for step in range(4):
        with world.joined() if step % 2 else contextlib.nullcontext():
            run(batch(20, seed=10 * step + world.rank))
        states.append(state_of(quantizer))
    return states


def test_a_compiled_step_looks_for_the_group_anew(ranks: Ranks) -> None:
    """One that was compiled where there was no process group sums over the ranks once there is one."""
    for step, (first, second) in enumerate(zip(*ranks.run(2, compiled_before_the_group), strict=True)):
        same = [torch.equal(first[name], second[name]) for name in ("embedding", "cluster_size", "embedding_sum")]
        assert same == [step % 2 == 1] * 3, f"step {step}: state is the same on both ranks: {same}"
