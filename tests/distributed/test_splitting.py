"""Splitting and the final means over ranks: the same bits on all of them, from the vectors of all of them."""

import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

import quantizers
from quantizers import CodeSplitting, final_means
from tests.cases import DIM, batch, state_of
from tests.distributed.ranks import Ranks, World
from tests.training.test_replacement import optimizer_of

EPS = torch.finfo(torch.float32).eps
FIRST_FAILURE = (Phase.explicit, Phase.generate)  # each further example of a deadlock would take its time limit
State = dict[str, Tensor]


def built(name: str) -> quantizers.Quantizer:
    torch.manual_seed(0)
    return quantizers.create(name, dim=DIM, codebook_size=16)


def shard(rank: int, step: int, counts: list[int]) -> Tensor:
    return batch(counts[rank], seed=10 * step + rank)


def split(world: World, counts: list[int]) -> list[tuple[State, list[int], State]]:
    """The state after three steps, and how many codes each moved; no forward at all on a rank without vectors."""
    results = []
    with world.joined():
        for name in ("vq", "ema_vq", "residual"):
            quantizer = built(name)
            splitting = CodeSplitting(quantizer, optimizer_of(quantizer), threshold=0.9, decay=0.3)
            moved = []
            for step in range(3):
                torch.manual_seed(100 * world.rank + step)  # each rank draws its own
                x = shard(world.rank, step, counts)
                if len(x) or name == "ema_vq":  # whose forward is collective
                    quantizer(x)
                moved.append(splitting.step())
            results.append((state_of(quantizer), moved, splitting.state_dict()))
    return results


@settings(max_examples=4, phases=FIRST_FAILURE)
@given(counts=st.lists(st.sampled_from([0, 0, 1, 3, 60]), min_size=2, max_size=3).filter(lambda n: 60 in n))
def test_ranks_split_alike(ranks: Ranks, counts: list[int]) -> None:
    """Bit for bit, with empty and uneven shards."""
    first, *others = ranks.run(len(counts), split, counts)
    for other in others:
        for (state, moved, use), (their_state, their_moved, their_use) in zip(first, other, strict=True):
            assert moved == their_moved
            for a, b in ((state, their_state), (use, their_use)):
                assert a.keys() == b.keys()
                assert all(torch.equal(a[key], b[key]) for key in a)
    assert any(sum(moved) for _, moved, _ in first)


def finished(world: World, counts: list[int]) -> list[State]:
    """As many batches as the rank has vectors of, of ten vectors each."""
    states = []
    with world.joined():
        for name in ("vq", "ema_vq", "residual"):
            quantizer = built(name)
            final_means(quantizer, list(shard(world.rank, 0, counts).split(10)))
            states.append(state_of(quantizer))
    return states


def test_final_means_are_those_of_all_ranks(ranks: Ranks) -> None:
    """Bit for bit on all ranks, one of which has no batch; and those of one process up to rounding."""
    counts = [25, 0, 40]
    first, *others = ranks.run(3, finished, counts)
    for other in others:
        for a, b in zip(first, other, strict=True):
            assert all(torch.equal(a[key], b[key]) for key in a)
    for name, state in zip(("vq", "ema_vq", "residual"), first, strict=True):
        alone = built(name)
        final_means(alone, [shard(rank, 0, counts) for rank in (0, 2)])
        for key, value in state_of(alone).items():
            # Sums of differences below 10, rounded once for each of seven batches, and the mean.
            torch.testing.assert_close(state[key], value, rtol=0, atol=100 * EPS)
