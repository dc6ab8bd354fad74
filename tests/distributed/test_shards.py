"""Shards of any size, also none; vectors that do not count; ranks that begin with different codes.

The quantizers alone, in float32: they get the same bits on the ranks as in the one process that judges them, so
every vector has the same index in both.
"""

import copy

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from quantizers import EMAVectorQuantizer, Quantizer
from tests.cases import CASES, SIZE, Case, assert_same_state, batch, state_of
from tests.distributed.ranks import Ranks, World

State = dict[str, Tensor]
Shard = tuple[Tensor, Tensor]  # vectors and mask
EPS = torch.finfo(torch.float32).eps
STEPS = 2
FIRST_FAILURE = (Phase.explicit, Phase.generate)  # each further example of a deadlock would take its time limit

# Without a projection, which may round a vector in an order that depends on the number of rows beside it.
EXACT_CASES = [case for case in CASES if not case.multiplies]
EMA_CASES = [case for case in EXACT_CASES if isinstance(case.sample, EMAVectorQuantizer)]


@st.composite
def shard_kinds(draw: st.DrawFn) -> list[tuple[int, str]]:
    """The size and the kind of each rank's shard."""
    size = st.sampled_from([0, 0, 1, 2, 7, 30])
    shard = st.tuples(size, st.sampled_from(["plain", "masked", "nan", "mixed"]))
    ranks = draw(st.sampled_from([2, 4]))
    return draw(st.lists(shard, min_size=ranks, max_size=ranks))


def shard_of(count: int, kind: str, seed: int) -> Shard:
    x, mask = batch(count, seed=seed), torch.ones(count, dtype=torch.bool)
    if kind in ("nan", "mixed"):
        x[:: 1 if kind == "nan" else 3] = torch.nan
    if kind in ("masked", "mixed"):
        mask[:: 1 if kind == "masked" else 2] = False
    return x, mask


def shards_of(kinds: list[tuple[int, str]], step: int) -> list[Shard]:
    return [shard_of(count, kind, 10 * step + rank) for rank, (count, kind) in enumerate(kinds)]


def built(case: Case, seed: int) -> Quantizer:
    torch.manual_seed(seed)
    return case.build()


def observe(
    world: World, cases: list[Case], kinds: list[tuple[int, str]], seeds: list[int]
) -> list[list[tuple[State, Tensor]]]:
    """For each case, the state and the indices after each step on this rank's shard."""
    results = []
    with world.joined():
        for case in cases:
            quantizer = built(case, seeds[world.rank])
            steps = []
            for step in range(STEPS):
                torch.manual_seed(step)
                x, mask = shards_of(kinds, step)[world.rank]
                indices = quantizer(x, mask).indices
                steps.append((state_of(quantizer), indices))
            results.append(steps)
    return results


def assert_one_step(quantizer: EMAVectorQuantizer, shards: list[Shard], after: State, where: str) -> None:
    """`after` is the state that the quantizer's step on the whole batch gives, up to the order of summation."""
    before = state_of(quantizer)
    x, mask = (torch.cat(parts) for parts in zip(*shards, strict=True))
    indices = quantizer(x, mask).indices
    if (indices < 0).all():
        assert_same_state(before, after)
        return
    # m = γm + Σ_r (1−γ)s_r over W ranks: the roundings of γ and 1−γ, of the products and of s_r, and W additions;
    # in the one process there are fewer. Each is half an eps of at most |m| + Σ|z|.
    counts = torch.bincount(indices[indices >= 0], minlength=SIZE)
    norms = quantizer._to_value_space(x[indices >= 0]).abs()
    magnitude = before["embedding_sum"].abs().index_add(0, indices[indices >= 0], norms)
    roundings = (len(shards) + 8) * EPS
    off = (after["embedding_sum"] - quantizer.embedding_sum).abs()
    assert (off <= roundings * magnitude).all(), f"{where}: embedding_sum is off by {off.max()}"
    off = (after["cluster_size"] - quantizer.cluster_size).abs()
    assert (off <= roundings * (before["cluster_size"] + counts)).all(), (
        f"{where}: cluster_size is off by {off.max()}"
    )
    # e = m / N̂: the errors of m and N above, and K + 4 roundings of N's sum and the smoothing.
    smallest = quantizer.cluster_size.min()
    relative = roundings * float((before["cluster_size"] + counts).max() / smallest) + (SIZE + 4) * EPS
    allowed = 2 * (relative * quantizer.embedding.abs() + roundings * magnitude / smallest)
    off = (after["embedding"] - quantizer.embedding).abs()
    assert (off <= allowed).all(), f"{where}: embedding is off by {off.max()}"


def load(quantizer: Quantizer, state: State) -> None:
    with torch.no_grad():
        for name, tensor in [*quantizer.named_parameters(), *quantizer.named_buffers()]:
            tensor.copy_(state[name])


@settings(max_examples=15, phases=FIRST_FAILURE)
@given(kinds=shard_kinds())
def test_shards_of_any_kind_make_the_step_of_the_whole_batch(ranks: Ranks, kinds: list[tuple[int, str]]) -> None:
    """No rank waits, none drifts; where no vector on any rank counts, nothing moves."""
    results = ranks.run(len(kinds), observe, EMA_CASES, kinds, [0] * len(kinds))
    for case, *steps_of_ranks in zip(EMA_CASES, *results, strict=True):
        quantizer = built(case, 0)
        for step, outcomes in enumerate(zip(*steps_of_ranks, strict=True)):
            first = outcomes[0][0]
            for state, _ in outcomes[1:]:
                assert_same_state(first, state)
            shards = shards_of(kinds, step)
            together = copy.deepcopy(quantizer).eval()(*(torch.cat(parts) for parts in zip(*shards, strict=True)))
            assert torch.equal(torch.cat([indices for _, indices in outcomes]), together.indices)
            assert_one_step(quantizer, shards, first, f"{case}, step {step}")
            load(quantizer, first)


@pytest.mark.parametrize("kind", ["plain", "masked", "nan"])
def test_only_the_last_rank_has_vectors_that_count(ranks: Ranks, kind: str) -> None:
    """With every quantizer: the others wait for nothing, and no state but that of moving averages moves."""
    kinds = [(0 if kind == "plain" else 5, kind), (12, "plain")]
    results = ranks.run(2, observe, CASES, kinds, [0, 0])
    for case, first, last in zip(CASES, *results, strict=True):
        for step, ((state, indices), (other, _)) in enumerate(zip(first, last, strict=True)):
            assert (indices == -1).all()
            for name in state:
                assert torch.equal(state[name], other[name]), f"{case}, step {step}: {name} differs"
        moved = any(not torch.equal(value, first[-1][0][name]) for name, value in state_of(built(case, 0)).items())
        assert moved == bool(case.moving_averages), f"{case}: state moved is {moved}"


@settings(max_examples=10, phases=FIRST_FAILURE)
@given(kinds=shard_kinds())
def test_a_step_gives_all_ranks_the_averages_of_the_first(ranks: Ranks, kinds: list[tuple[int, str]]) -> None:
    """Where they began with different codes; without a vector that counts, each keeps its own."""
    seeds = list(range(len(kinds)))
    results = ranks.run(len(kinds), observe, EMA_CASES, kinds, seeds)
    for case, *steps_of_ranks in zip(EMA_CASES, *results, strict=True):
        states, indices = zip(*(steps[0] for steps in steps_of_ranks), strict=True)
        if (torch.cat(indices) < 0).all():
            for seed, state in zip(seeds, states, strict=True):
                assert_same_state(state, state_of(built(case, seed)))
            continue
        for rank, state in enumerate(states):
            for name in ("embedding", "cluster_size", "embedding_sum"):
                assert torch.equal(state[name], states[0][name]), f"{case}: {name} differs on rank {rank}"


def at_rest_on_the_first_rank(world: World) -> State:
    """The vectors are the first rank's codes, one each: its averages stay what they are. The second has others."""
    codes = torch.arange(9.0)[:, None]  # of nine codes, N̂ = 1 comes out rounded
    with world.joined():
        quantizer = EMAVectorQuantizer(1, 9, decay=0.5)
        quantizer.set_codebook(codes + 10 * world.rank)
        quantizer(codes if world.rank == 0 else codes[:0])
    return state_of(quantizer)


def test_ranks_agree_when_the_first_is_at_rest(ranks: Ranks) -> None:
    first, second = ranks.run(2, at_rest_on_the_first_rank)
    for name in ("embedding", "cluster_size", "embedding_sum"):
        assert torch.equal(first[name], second[name]), f"{name} differs"


def beyond_the_range(world: World) -> State:
    """Code 0's vectors sum to more than float32 holds, where the ranks' averages differ; then an ordinary step."""
    with world.joined():
        quantizer = EMAVectorQuantizer(1, 2, decay=0.5)
        quantizer.set_codebook(torch.tensor([[3e38 - 1e37 * world.rank], [0.0]]))
        quantizer(torch.tensor([[3e38], [3e38], [1.0]]))
        assert all(tensor.isfinite().all() for tensor in state_of(quantizer).values())
        quantizer(torch.tensor([[1.0]]))
    return state_of(quantizer)


def test_ranks_agree_after_a_step_in_which_no_sum_leaves_the_range(ranks: Ranks) -> None:
    first, second = ranks.run(2, beyond_the_range)
    for name in ("embedding", "cluster_size", "embedding_sum"):
        assert first[name].isfinite().all()
        assert torch.equal(first[name], second[name]), f"{name} differs"


def beyond_the_range_together(world: World) -> State:
    """Code 0's vectors sum to less than float32's largest on each rank, and to more over both."""
    with world.joined():
        quantizer = code_at_2e38()
        quantizer(torch.tensor([[2e38], [1.0]]))
    return state_of(quantizer)


def code_at_2e38() -> EMAVectorQuantizer:
    quantizer = EMAVectorQuantizer(1, 2, decay=0.5)
    quantizer.set_codebook(torch.tensor([[2e38], [0.0]]))
    return quantizer


def test_a_sum_that_leaves_the_range_over_all_ranks_does_not_count(ranks: Ranks) -> None:
    quantizer = code_at_2e38()
    quantizer(torch.tensor([[2e38], [1.0], [2e38], [1.0]]))
    for state in ranks.run(2, beyond_the_range_together):
        torch.testing.assert_close(state, state_of(quantizer))


FORWARDS = 2


def accumulated(world: World) -> list[State]:
    """For each case, the state after a step of several forwards, to each of which a rank brings its own share."""
    states = []
    with world.joined():
        for case in EMA_CASES:
            quantizer = built(case, 0).accumulate(FORWARDS)
            for forward in range(FORWARDS):
                quantizer(*shard_of(7 * world.rank, "mixed", 10 * forward + world.rank))
            states.append(state_of(quantizer))
    return states


def test_accumulated_forwards_of_all_ranks_are_one_step(ranks: Ranks) -> None:
    """Also where the first rank brings nothing."""
    for case, first, second in zip(EMA_CASES, *ranks.run(2, accumulated), strict=True):
        assert_same_state(first, second)
        shards = [
            shard_of(7 * rank, "mixed", 10 * forward + rank) for forward in range(FORWARDS) for rank in (0, 1)
        ]
        assert_one_step(built(case, 0), shards, first, str(case))
