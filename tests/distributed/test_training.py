"""Training over ranks, under DDP and under FSDP, is training in one process on the whole batch: every quantizer.

All in float64, where no index is near enough to a tie to depend on the order of a sum; `test_shards.py` compares
the state in float32, from equal vectors.
"""

import contextlib

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from tests.cases import Case
from tests.distributed.autoencoder import (
    EMA_CASES,
    WHOLE_CASES,
    Autoencoder,
    depends_on_shards,
    descend,
    shards,
    whole_state,
    write_state,
)
from tests.distributed.ranks import Ranks, World

State = dict[str, Tensor]
STEPS = 3
# A step is fewer than a thousand roundings, none amplified a thousandfold; what is summed over too few ranks, or
# weighted wrongly, moves it by more than 10⁻⁶.
TOLERANCE = 1e6 * torch.finfo(torch.float64).eps


def wrapped(case: Case, how: str, world: World) -> nn.Module:
    """The model as its users would wrap it. DDP gives all ranks the first one's state, FSDP leaves it to them."""
    torch.manual_seed(world.rank if how == "ddp" else 0)
    model = Autoencoder(case).double()
    if how == "fsdp":
        return fully_shard(model)
    return DistributedDataParallel(model)


def noise_seed(step: int, rank: int) -> int:
    return 100 * step + rank


def cases_of(how: str, size: int) -> list[Case]:
    """All on two ranks under DDP; otherwise those on whose operations the others stand."""
    return [case for case in WHOLE_CASES if (how, size) == ("ddp", 2) or case.foundation or case.moving_averages]


def train(world: World, how: str) -> list[list[State]]:
    """For each case, the state at the start and after each step."""
    with world.joined():
        return [history_of(case, how, world) for case in cases_of(how, world.size)]


def history_of(case: Case, how: str, world: World) -> list[State]:
    model = wrapped(case, how, world)
    history = [whole_state(model)]
    for step in range(STEPS):
        torch.manual_seed(noise_seed(step, world.rank))
        model(shards(step, world.size, torch.float64)[world.rank]).backward()
        descend(model)
        history.append(whole_state(model))
    return history


def step_of_one_process(case: Case, before: State, step: int, size: int) -> State:
    """The state after the step on the whole batch; where noise is drawn, on each rank's part with its noise.

    So too where the loss is no mean over vectors: it is that of each rank's part.
    """
    model = Autoencoder(case).double()
    write_state(model, before)
    parts = shards(step, size, torch.float64)
    parts = parts if depends_on_shards(case) else (torch.cat(parts),)
    for rank, part in enumerate(parts):
        torch.manual_seed(noise_seed(step, rank))
        (model(part) / len(parts)).backward()
    descend(model)
    return whole_state(model)


def assert_near(actual: State, expected: State, where: str) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        gap = (actual[name].double() - value.double()).abs().max() if value.numel() else 0.0
        assert gap <= TOLERANCE * max(1.0, float(value.double().abs().max())), f"{where}: {name} is off by {gap}"


@pytest.mark.parametrize("size", [2, pytest.param(4, marks=pytest.mark.long)])
@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_a_step_is_that_of_one_process_on_the_whole_batch(ranks: Ranks, how: str, size: int) -> None:
    """From the state that the step began in; after it, every parameter and buffer is bit-equal on all ranks."""
    results = ranks.run(size, train, how)
    for case, *histories in zip(cases_of(how, size), *results, strict=True):
        for step, (before, after) in enumerate(zip(histories[0], histories[0][1:], strict=False)):
            where = f"{case}, step {step}"
            for rank, history in enumerate(histories):
                for name, value in history[step + 1].items():
                    assert torch.equal(value, after[name]), f"{where}: {name} differs on rank {rank}"
            assert any(not torch.equal(before[name], after[name]) for name in before), f"{where}: nothing moved"
            assert_near(after, step_of_one_process(case, before, step, size), where)


def accumulate(world: World, syncs_first: bool) -> list[tuple[State, list[State], State]]:
    """For each EMA case: the state before, after each of two forwards, and the gradients of both together."""
    with world.joined():
        return [accumulated(case, world, syncs_first) for case in EMA_CASES]


def accumulated(case: Case, world: World, syncs_first: bool) -> tuple[State, list[State], State]:
    model = wrapped(case, "ddp", world)
    before, after = whole_state(model), []
    for forward in range(2):
        later = forward == 0 and not syncs_first
        with model.no_sync() if later else contextlib.nullcontext():
            (model(shards(forward, world.size, torch.float64)[world.rank]) / 2).backward()
        after.append(whole_state(model))
    return before, after, gradients(model)


def gradients(model: nn.Module) -> State:
    return {name.removeprefix("module."): parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("syncs_first", [False, True], ids=["no_sync", "sync"])
def test_accumulating_gradients_moves_state_in_each_forward(ranks: Ranks, syncs_first: bool) -> None:
    """By the statistics of all ranks, also under `no_sync`; the gradients are those of one process."""
    results = ranks.run(2, accumulate, syncs_first)
    for case, (before, after, summed), other in zip(EMA_CASES, *results, strict=True):
        model = Autoencoder(case).double()
        write_state(model, before)
        for forward in range(2):
            size_before = model.quantizer.cluster_size.clone()
            (model(torch.cat(shards(forward, 2, torch.float64))) / 2).backward()
            assert not torch.equal(model.quantizer.cluster_size, size_before)
            assert_near(after[forward], whole_state(model), f"{case}, forward {forward}")
            for name, value in after[forward].items():
                assert torch.equal(other[1][forward][name], value), f"{case}, forward {forward}: {name} differs"
        assert_near(summed, gradients(model), f"{case}, gradients")
