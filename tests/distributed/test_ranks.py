"""The harness itself: a deadlock and an exception reach the test, and the next scenario runs all the same."""

import os
import signal

import pytest
import torch
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from quantizers import EMAVectorQuantizer
from tests.distributed.ranks import DeadlockError, RankError, Ranks, World


def sum_of_ranks(world: World) -> int:
    with world.joined():
        total = torch.tensor(world.rank)
        dist.all_reduce(total)
    return int(total)


def all_but_the_last_step(world: World) -> None:
    with world.joined():
        if world.rank < world.size - 1:
            EMAVectorQuantizer(3, 6)(torch.randn(5, 3))


def the_last_raises(world: World) -> None:
    with world.joined():
        if world.rank == world.size - 1:
            raise LookupError("lost")
        dist.all_reduce(torch.zeros(()))


def the_first_dies(world: World) -> None:
    with world.joined():
        dist.all_reduce(torch.zeros(()))  # now all are connected: gloo waits long for one that dies before
        if world.rank == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        dist.all_reduce(torch.zeros(()))


def test_a_deadlock_names_the_ranks_that_wait(ranks: Ranks) -> None:
    """A rank that leaves out a training forward leaves the others waiting for it; later scenarios still run."""
    assert ranks.run(2, sum_of_ranks) == [1, 1]
    with pytest.raises(DeadlockError, match="deadlock: after 3 s no answer from rank 0, 1 of 2"):
        ranks.run(2, all_but_the_last_step, seconds=3)
    assert ranks.run(2, sum_of_ranks) == [1, 1]


def test_an_exception_on_a_rank_comes_with_its_traceback(ranks: Ranks) -> None:
    with pytest.raises(RankError, match=r"rank 1 of 2: Traceback[^$]*in the_last_raises[^$]*LookupError: lost"):
        ranks.run(2, the_last_raises)
    with pytest.raises(RankError, match="rank 0 of 2: the process ended without an answer"):
        ranks.run(2, the_first_dies)
    assert ranks.run(2, sum_of_ranks) == [1, 1]


def a_model_is_left(world: World) -> None:
    with world.joined():
        model = DistributedDataParallel(torch.nn.Linear(2, 2))
    model.eval()


def test_a_model_that_would_outlive_its_group_is_found(ranks: Ranks) -> None:
    """It would end the group's threads while they wait for Python's lock: a rare deadlock."""
    with pytest.raises(RankError, match="AssertionError: a DDP model is left"):
        ranks.run(2, a_model_is_left)
