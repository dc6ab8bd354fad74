"""k-means over ranks: the codes of one process on all their vectors, bit-equal on each."""

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch import distributed as dist

from quantizers.clustering.kmeans import _assigned, kmeans
from quantizers.kernels.common.vectors import normalize
from tests.cases import normal
from tests.clustering.test_kmeans import EPS, assert_codes_are_taken, inertia, seeded
from tests.distributed.ranks import Ranks, World

FIRST_FAILURE = (Phase.explicit, Phase.generate)  # each further example of a deadlock would take its time limit


def codes_of(world: World, shards: list[Tensor], calls: list[tuple[int, dict]]) -> list[Tensor]:
    """What this rank gets from each call on its shard; its own random numbers differ from the other ranks'."""
    torch.manual_seed(world.rank)
    with world.joined():
        return [kmeans(shards[world.rank], size, **options) for size, options in calls]


def error_of(world: World, shards: list[Tensor], options: dict) -> str:
    with world.joined():
        try:
            kmeans(shards[world.rank], 2, **options)
        except ValueError as error:
            return str(error)
    return "none"


@st.composite
def shards_of_few_values(draw: st.DrawFn) -> list[Tensor]:
    """Uneven and empty shards, whose vectors are often equal, also to those of other ranks."""
    ranks, largest, seed = draw(st.sampled_from([2, 3])), draw(st.integers(1, 50)), draw(st.integers(0, 99))
    counts = draw(st.lists(st.sampled_from([0, 0, 1, 7, 30]), min_size=ranks, max_size=ranks).filter(any))
    x = torch.randint(-largest, largest, (sum(counts), 2), generator=seeded(seed)).float() + 0.25
    return list(x.split(counts))


@settings(max_examples=5, phases=FIRST_FAILURE)
@given(shards=shards_of_few_values(), size=st.integers(1, 16))
def test_any_shards_give_one_codebook(ranks: Ranks, shards: list[Tensor], size: int) -> None:
    """No rank waits, none drifts; the seeds have the bits of one process; each code has a vector on some rank."""
    calls = [(size, {"iterations": 2}), (size, {"iterations": 2, "distance": "cosine"}), (size, {"iterations": 0})]
    first, *others = ranks.run(len(shards), codes_of, shards, calls)
    for other in others:
        assert all(map(torch.equal, first, other))
    x = torch.cat(shards)
    for codes, (_, options) in zip(first, calls, strict=True):
        assert_codes_are_taken(normalize(x) if options.get("distance") == "cosine" else x, codes)
    torch.manual_seed(0)  # as the first rank
    alone = [kmeans(x, size, **options) for size, options in calls][-1]
    assert torch.equal(first[-1], alone)  # a grid: the sums of D², by which seeds are drawn, are exact


def test_codes_are_those_of_one_process(ranks: Ranks) -> None:
    """Where no vector is between two codes, the order of summation is all that differs."""
    shards = list(normal(0, 300, 4, dtype=torch.float32).split([0, 100, 7, 193]))
    x = torch.cat(shards)
    for distance in ("euclidean", "cosine", "angle"):
        found = ranks.run(4, codes_of, shards, [(40, {"distance": distance})])
        torch.manual_seed(0)
        alone = kmeans(x, 40, distance=distance)
        # Ten iterations, each of which rounds a mean of vectors within 5 a few times and passes on what came in.
        assert (found[0][0] - alone).abs().max() <= 10 * 8 * EPS * 5


def test_vectors_of_all_ranks_are_seeds(ranks: Ranks) -> None:
    """Two ranks that hold one cluster each get one code in each; by themselves, both in their own."""
    shards = [normal(0, 40, 2, dtype=torch.float32), 100 + normal(0, 40, 2, dtype=torch.float32)]
    calls = [(2, {}), (2, {"iterations": 0})]
    for codes in ranks.run(2, codes_of, shards, calls)[0]:
        assert sorted((codes > 50).all(-1).tolist()) == [False, True]
    alone = ranks.run(2, codes_of, shards, [(2, {"process_group": None})])
    for (codes,), shard in zip(alone, shards, strict=True):
        assert inertia(shard, codes) < inertia(shard, shard.mean(0, keepdim=True))


def test_every_vector_of_all_ranks_becomes_a_code(ranks: Ranks) -> None:
    """Where there are as many codes as vectors, also with ranks that have none."""
    x = normal(3, 60, 3, dtype=torch.float32)
    for (codes,) in ranks.run(4, codes_of, [x[:11], x[:0], x[11:], x[:0]], [(60, {})]):
        assert torch.equal(codes.unique(dim=0), x.unique(dim=0))


def reseeded(world: World, shards: list[Tensor], start: Tensor) -> list[Tensor]:
    with world.joined():
        assignment = _assigned(shards[world.rank], start, dist.group.WORLD)
    return [assignment.codes, assignment.counts]


def test_codes_without_a_vector_move_to_the_farthest_of_all_ranks(ranks: Ranks) -> None:
    """Where it is two vectors of the last rank and one that the first and the second share."""
    x = normal(0, 20, 2, dtype=torch.float32)
    far = torch.tensor([[50.0, 0.0], [0.0, 70.0], [90.0, 90.0]])
    shards = [torch.cat([x, far[:1]]), torch.cat([far[:1], x]), x[:0], torch.cat([x[:3], far[1:]])]
    start = torch.tensor([[0.0, 0.0], [-900.0, 0.0], [-900.0, 1.0], [-900.0, 2.0], [-900.0, 3.0]])
    for codes, counts in ranks.run(4, reseeded, shards, start):
        assert (counts > 0).all()
        assert counts.sum() == 21 + 21 + 5
        assert all((codes == row).all(-1).any() for row in far)
        assert torch.unique(codes, dim=0).shape == codes.shape


@pytest.mark.parametrize(
    ("shards", "options", "message"),
    [
        ([torch.ones(3, 2), torch.tensor([[torch.inf, 0.0]])], {}, "1 vectors that are not finite"),
        ([torch.zeros(0, 2), torch.zeros(0, 2)], {}, "expected a vector on at least one rank"),
        ([torch.zeros(0, 2), torch.zeros(3, 2)], {"distance": "cosine"}, "a vector that is not zero"),
        ([torch.zeros(0, 2), torch.zeros(3, 2)], {}, "none"),
    ],
    ids=["not finite", "none at all", "no direction", "all well"],
)
def test_all_ranks_raise_where_one_has_cause(
    ranks: Ranks, shards: list[Tensor], options: dict, message: str
) -> None:
    for error in ranks.run(2, error_of, shards, options):
        assert message in error
