"""Which ranks a quantizer sums over, when that is found out, and what needs no other rank."""

import copy
import pickle

import pytest
import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from quantizers import EMAVectorQuantizer, Quantizer
from tests.cases import CASES, DIM, SIZE, Case, assert_same_state, batch, state_of
from tests.distributed.autoencoder import Autoencoder, shards
from tests.distributed.ranks import Ranks, World

State = dict[str, Tensor]
PAIRS = [[0, 1], [2, 3]]


def part(rank: int, step: int = 0) -> Tensor:
    return batch(12, seed=10 * step + rank)


def ema(**options: object) -> EMAVectorQuantizer:
    """Of the same first codes in every process."""
    torch.manual_seed(0)
    return EMAVectorQuantizer(DIM, SIZE, decay=0.5, **options)


def state_after(*parts: Tensor) -> State:
    """What one process gets from a step on these vectors."""
    quantizer = ema()
    quantizer(torch.cat(parts))
    return state_of(quantizer)


def assert_near(state: State, expected: State) -> None:
    """Up to rounding: sums of a few vectors below 4; one that is missing moves its sum by a thousandth."""
    for name, value in expected.items():
        torch.testing.assert_close(
            state[name], value, rtol=1e-5, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


# When the group is found


def before_and_again(world: World, built_first: bool) -> list[State]:
    """A step in one group, another in the next; the quantizer built before the first or in it."""
    quantizer = ema() if built_first else None
    states = []
    for step in range(2):
        with world.joined():
            quantizer = quantizer or ema()
            quantizer(part(world.rank, step))
            states.append(state_of(quantizer))
    quantizer(part(world.rank))  # and by itself, where there is no group any more
    return [*states, state_of(quantizer)]


@pytest.mark.parametrize("built_first", [True, False], ids=["built before", "built in"])
def test_the_group_is_looked_up_in_each_step(ranks: Ranks, built_first: bool) -> None:
    results = ranks.run(2, before_and_again, built_first)
    one_process = ema()
    for step, (first, second) in enumerate(zip(*results, strict=True)):
        if step == 2:
            assert not torch.equal(first["embedding"], second["embedding"])
            return
        assert_same_state(first, second)
        one_process(torch.cat([part(rank, step) for rank in range(2)]))
        assert_near(first, state_of(one_process))


# What needs no other rank


def alone_on_the_first(world: World) -> list[State]:
    """Rank 0 evaluates and encodes in both modes, then all train: nothing is left in between."""
    with world.joined():
        return [trained_after_rank_0_was_alone(case, world) for case in CASES]


def trained_after_rank_0_was_alone(case: Case, world: World) -> State:
    model = DistributedDataParallel(Autoencoder(case))
    x = shards(world.rank, 1, torch.float32)[0]
    if world.rank == 0:
        z = model.module.encoder(x)
        model.module.quantizer.encode(z)
        model.module.eval()
        model.module(x)
        model.module.quantizer.encode(z)
        model.train()
    model(x).backward()
    return state_of(model.module.quantizer)


def test_evaluation_and_encode_need_no_other_rank(ranks: Ranks) -> None:
    for case, first, second in zip(CASES, *ranks.run(2, alone_on_the_first), strict=True):
        for name in first:
            assert torch.equal(first[name], second[name]), f"{case}: {name} differs"


# Which group


def own_group() -> dist.ProcessGroup:
    """Of the pair that this rank is in; every rank takes part in making every group."""
    groups = [dist.new_group(pair) for pair in PAIRS]
    return groups[dist.get_rank() // 2]


def each_by_itself(world: World) -> State:
    quantizer = ema(process_group=None)
    with world.joined():
        quantizer(part(world.rank))
    return state_of(quantizer)


def test_without_a_group_each_rank_is_by_itself(ranks: Ranks) -> None:
    for rank, state in enumerate(ranks.run(2, each_by_itself)):
        assert_same_state(state, state_after(part(rank)))


def in_pairs(world: World) -> dict[str, tuple[str | None, State]]:
    """The group's name and the state after a step, for quantizers that came by their pair's group in many ways."""
    with world.joined():
        group = own_group()
        given, assigned = ema(process_group=group), ema()
        assigned.process_group = group
        pickled = pickle.loads(pickle.dumps(given))
        quantizers = {
            "given": given,
            "assigned": assigned,
            "copied": copy.deepcopy(given),
            "pickled": pickled,
            "pickled and copied": copy.deepcopy(pickled),
            "copied and pickled": pickle.loads(pickle.dumps(copy.deepcopy(given))),
        }
        for quantizer in quantizers.values():
            quantizer(part(world.rank))
        assert all(quantizer.process_group == group.group_name for quantizer in (given, assigned))
        return {way: (quantizer.process_group, state_of(quantizer)) for way, quantizer in quantizers.items()}


def test_a_pair_of_four_ranks_sums_over_the_pair(ranks: Ranks) -> None:
    """Also in a copy, in what came through pickle, and in a copy of that."""
    results = ranks.run(4, in_pairs)
    for pair in PAIRS:
        expected_name = results[pair[0]]["given"][0]
        assert expected_name not in (None, "world")
        for way in results[0]:
            names, states = zip(*(results[rank][way] for rank in pair), strict=True)
            assert names[0] == expected_name, f"{way}: process_group is {names[0]!r}"
            assert_same_state(*states)
            assert_near(states[0], state_after(*map(part, pair)))
    assert not torch.equal(results[0]["given"][1]["embedding"], results[2]["given"][1]["embedding"])


def by_turns(world: World) -> list[State]:
    """All ranks, then the pair, then each by itself."""
    with world.joined():
        quantizer, states = ema(), []
        for group in ("world", own_group(), None):
            quantizer.process_group = group
            quantizer(part(world.rank))
            states.append(state_of(quantizer)["embedding"])
    return states


def test_the_group_may_be_assigned_between_steps(ranks: Ranks) -> None:
    everyone, pairs, alone = zip(*ranks.run(4, by_turns), strict=True)
    same = [[torch.equal(codes[0], other) for other in codes] for codes in (everyone, pairs, alone)]
    assert same == [[True] * 4, [True, True, False, False], [True, False, False, False]]
    assert torch.equal(pairs[2], pairs[3])


def pickled_in_a_group(world: World) -> bytes:
    with world.joined():
        return pickle.dumps(ema(process_group=dist.new_group([0, 1])))


def without_that_group(world: World, pickled: bytes) -> tuple[Tensor, Tensor, str, str]:
    """What a process without the group does: evaluates, encodes, and refuses to train until it gets another."""
    with world.joined():
        quantizer = pickle.loads(pickled)
        indices = quantizer.eval()(part(0)).indices
        encoded = quantizer.train().encode(part(0))
        before = state_of(quantizer)
        try:
            quantizer(part(0))
        except RuntimeError as error:
            sentence = str(error)
        assert_same_state(before, state_of(quantizer))
        quantizer.process_group = "world"
        quantizer(part(world.rank))
    return indices, encoded, sentence, quantizer.process_group


def test_a_pickled_group_is_a_name_that_training_needs(ranks: Ranks) -> None:
    pickled = ranks.run(2, pickled_in_a_group)[0]
    here = pickle.loads(pickled)
    name = here.process_group
    assert name not in (None, "world")
    here(part(0))  # where no process group is, there is nothing to sum over
    assert_same_state(state_of(here), state_after(part(0)))
    expected = ema().eval()(part(0)).indices
    for indices, encoded, sentence, process_group in ranks.run(2, without_that_group, pickled):
        assert torch.equal(indices, expected)
        assert torch.equal(encoded, expected)
        assert sentence == (
            f"the quantizer sums its statistics over process group {name!r}, which this process does not have; "
            "set its process_group"
        )
        assert process_group == "world"


@pytest.mark.parametrize("wrong", ["World", 0, [0, 1]])
def test_a_wrong_group_is_named(wrong: object) -> None:
    sentence = "process_group is .*, expected 'world', None or a torch.distributed.ProcessGroup"
    with pytest.raises(TypeError, match=sentence):
        EMAVectorQuantizer(DIM, SIZE, process_group=wrong)
    quantizer = ema()
    with pytest.raises(TypeError, match=sentence):
        quantizer.process_group = wrong
    assert quantizer.process_group == "world"


def test_the_choice_is_kept_where_there_are_no_ranks() -> None:
    for process_group in ("world", None):
        quantizer: Quantizer = ema(process_group=process_group)
        for other in (quantizer, copy.deepcopy(quantizer), pickle.loads(pickle.dumps(quantizer))):
            assert other.process_group == process_group
