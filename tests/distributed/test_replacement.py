"""Replacement and first codes over ranks: one codebook on all of them, whatever each has seen."""

import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import quantizers
from quantizers import AnchorUpdate, DeadCodeReplacement, warm_start
from tests.cases import DIM, batch, state_of
from tests.distributed.ranks import Ranks, World
from tests.training.test_replacement import optimizer_of

FIRST_FAILURE = (Phase.explicit, Phase.generate)  # each further example of a deadlock would take its time limit
NAMES = ("vq", "ema_vq", "residual", "multiscale")
MAPS = {"scales": (0.5, 1.0), "axes": 1}  # with a shared codebook, which has two places
State = dict[str, Tensor]


def built(name: str) -> quantizers.Quantizer:
    torch.manual_seed(0)
    return quantizers.create(name, dim=DIM, codebook_size=16, **(MAPS if name == "multiscale" else {}))


def shard(rank: int, step: int, counts: list[int]) -> Tensor:
    return 50 + batch(counts[rank], seed=10 * step + rank)


def replaced(world: World, counts: list[int]) -> list[tuple[State, list[int], State]]:
    """The state after three steps, and how many codes each moved; no forward at all on a rank without vectors."""
    results = []
    with world.joined():
        for name in NAMES:
            for kind in (DeadCodeReplacement, AnchorUpdate):
                quantizer = built(name)
                replacement = kind(quantizer, optimizer_of(quantizer), decay=0.3)
                moved = []
                for step in range(3):
                    torch.manual_seed(100 * world.rank + step)  # each rank draws its own
                    x = shard(world.rank, step, counts)
                    if len(x) or name == "ema_vq":  # whose forward is collective
                        quantizer(x)
                    moved.append(replacement.step())
                results.append((state_of(quantizer), moved, replacement.state_dict()))
    return results


@settings(max_examples=4, phases=FIRST_FAILURE)
@given(counts=st.lists(st.sampled_from([0, 0, 1, 3, 30]), min_size=2, max_size=3).filter(any))
def test_ranks_replace_alike(ranks: Ranks, counts: list[int]) -> None:
    """Bit for bit, with empty and uneven shards; by vectors of all ranks, and by the use on all of them."""
    first, *others = ranks.run(len(counts), replaced, counts)
    for other in others:
        for (state, moved, use), (their_state, their_moved, their_use) in zip(first, other, strict=True):
            assert moved == their_moved
            for a, b in ((state, their_state), (use, their_use)):
                assert a.keys() == b.keys()
                assert all(torch.equal(a[key], b[key]) for key in a)
    assert any(sum(moved) for _, moved, _ in first)
    state, _, use = first[0]
    seen = torch.cat([shard(rank, step, counts) for step in range(3) for rank in range(len(counts))])
    moved_codes = state["embedding"][(state["embedding"] != built("vq").codebook).any(-1)]
    assert (moved_codes[:, None] == seen).all(-1).any(1).all()
    assert len(moved_codes.unique(dim=0)) == len(moved_codes)


def taken_of(world: World, counts: list[int]) -> tuple[Tensor, int]:
    with world.joined():
        quantizer = built("vq")
        replacement = DeadCodeReplacement(quantizer, optimizer_of(quantizer), decay=0.0, threshold=0.5)
        quantizer(shard(world.rank, 0, counts))
        before = replacement._tables[""].codebook.detach().clone()
        moved = replacement.step()
        taken = quantizer.codebook.detach()[(quantizer.codebook != before).any(-1)]
    return taken, moved


def test_candidates_are_vectors_of_all_ranks(ranks: Ranks) -> None:
    """With four on each of four ranks, and fifteen codes or so to replace, every vector but a few becomes one."""
    counts = [4, 4, 0, 4]
    (taken, moved), *_ = ranks.run(4, taken_of, counts)
    assert moved == len(taken) == 12
    for rank in (0, 1, 3):
        assert (shard(rank, 0, counts)[:, None] == taken).all(-1).any(1).all()


def started(world: World) -> list[State]:
    states = []
    with world.joined():
        for name in ("ibq", "residual", "qinco", "simvq"):
            torch.manual_seed(world.rank)
            quantizer = quantizers.create(name, dim=DIM, codebook_size=8)
            quantizer.load_state_dict(built_state(name))
            if name == "residual":
                x = batch(30, seed=world.rank)
                warm_start(quantizer, [x[: 1 + 20 * world.rank]], max_vectors=15)
            else:
                quantizer.initialize_from(batch(40 * world.rank, seed=world.rank))
            states.append(state_of(quantizer))
    return states


def built_state(name: str) -> State:
    torch.manual_seed(0)
    return quantizers.create(name, dim=DIM, codebook_size=8).state_dict()


def test_first_codes_are_the_same_on_all_ranks(ranks: Ranks) -> None:
    """With an empty shard, and with samples drawn on each by itself."""
    first, second = ranks.run(2, started)
    for a, b in zip(first, second, strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a)


def wrapped(world: World, wraps: bool) -> tuple[State, list[str]]:
    """Warm start of a model in DistributedDataParallel with more batches on one rank than on the other."""
    torch.manual_seed(0)
    model: nn.Module = nn.Sequential(
        nn.Linear(DIM, DIM), nn.BatchNorm1d(DIM), quantizers.create("vq", dim=DIM, codebook_size=8)
    )
    with world.joined():
        inside, model = model, nn.parallel.DistributedDataParallel(model) if wraps else model
        torch.manual_seed(world.rank)
        warm_start(model, [(batch(9, seed=number), torch.zeros(9)) for number in range(1 + 3 * world.rank)])
        replacement = DeadCodeReplacement(model, optimizer_of(model))
        del model  # DDP must not outlive the process group, see World.joined
    return {name: value.clone() for name, value in inside.state_dict().items()}, list(replacement.state_dict())


def test_a_wrapped_model_starts_as_the_one_inside(ranks: Ranks) -> None:
    """Its own forward would wait for the other ranks in each batch, to bring its buffers along."""
    for (state, names), (other, _) in zip(ranks.run(2, wrapped, True), ranks.run(2, wrapped, False), strict=True):
        assert names == ["2"]
        assert all(torch.equal(state[key], other[key]) for key in state)
