"""No two items share an ID, the nearest stay where they are, and items that are there never move."""

from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from quantizers.item_ids import SemanticIDs, placing
from quantizers.item_ids.collisions import POLICIES
from quantizers.item_ids.levels import Levels
from tests.effort import examples
from tests.item_ids.cases import DISTINCT, QUANTIZERS, build, embeddings, kinds, names, seeds

distinct = pytest.mark.parametrize("collisions", DISTINCT)
every_policy = pytest.mark.parametrize("collisions", sorted(POLICIES))
counts = st.integers(1, 24)


def are_distinct(codes: Tensor) -> bool:
    return len(set(map(tuple, codes.tolist()))) == len(codes)


def errors(ids: SemanticIDs, x: Tensor, codes: Tensor) -> Tensor:
    """Squared distances [n] of embeddings to what codes [n, levels] stand for, in float64."""
    return (x.double() - Levels(ids.quantizer).decode(codes).double()).square().sum(-1)


@distinct
@given(name=names, kind=kinds, seed=seeds, count=counts)
def test_no_two_items_share_an_id(collisions: str, name: str, kind: str, seed: int, count: int) -> None:
    """Whatever the embeddings, as long as there are IDs."""
    ids = SemanticIDs.from_quantizer(build(name, seed), embeddings(kind, seed, count), collisions=collisions)
    assert are_distinct(ids.codes)
    assert ids.collision_rate == 0
    assert ((ids.codes >= 0) & (ids.codes < torch.tensor(ids.sizes))).all()


@distinct
@pytest.mark.parametrize("name", sorted(QUANTIZERS))
def test_every_id_can_be_given(collisions: str, name: str) -> None:
    quantizer = build(name, 0)
    count = torch.tensor(quantizer.codebook_sizes).prod().item()
    ids = SemanticIDs.from_quantizer(quantizer, torch.ones(count, 4), collisions=collisions)
    assert are_distinct(ids.codes)
    with pytest.raises(ValueError, match=rf"there are {count + 1} items for {count} IDs"):
        ids.extend(torch.ones(1, 4))
    assert len(ids) == count


@distinct
@given(name=names, kind=kinds, seed=seeds, count=counts, entries=st.sampled_from([1, 40]))
def test_prefixes_that_are_read_in_parts_still_give_distinct_ids(
    collisions: str, name: str, kind: str, seed: int, count: int, entries: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(placing, "ENTRIES", entries)
        ids = SemanticIDs.from_quantizer(build(name, seed), embeddings(kind, seed, count), collisions=collisions)
    assert are_distinct(ids.codes)


@given(name=names, kind=kinds, seed=seeds, count=counts)
def test_the_nearest_of_the_items_with_the_same_codes_keeps_them(
    name: str, kind: str, seed: int, count: int
) -> None:
    x, quantizer = embeddings(kind, seed, count), build(name, seed)
    ids = SemanticIDs.from_quantizer(quantizer, x)
    nearest = quantizer.encode(x).reshape(count, -1)
    costs = errors(ids, x, nearest)
    for codes in nearest.unique(dim=0):
        sharing = (nearest == codes).all(1).nonzero()[:, 0]
        best = sharing[costs[sharing].argmin()]
        assert torch.equal(ids.codes[best], codes)


@distinct
@given(name=names, kind=kinds, seed=seeds, count=counts)
def test_codes_before_the_last_change_only_under_a_full_prefix(
    collisions: str, name: str, kind: str, seed: int, count: int
) -> None:
    x, quantizer = embeddings(kind, seed, count), build(name, seed)
    ids = SemanticIDs.from_quantizer(quantizer, x, collisions=collisions)
    for item, nearest in enumerate(quantizer.encode(x).reshape(count, -1)):
        kept = int((ids.codes[item] == nearest).int().cumprod(0).sum())  # the codes that are the nearest
        for length in range(kept + 1, len(ids.sizes)):
            full = torch.tensor(ids.sizes[length:]).prod().item()
            assert len(ids.items_with(nearest[:length].tolist())) == full


@given(name=names, seed=seeds, count=counts)
def test_a_nearer_last_code_has_an_item_that_is_nearer_to_it(name: str, seed: int, count: int) -> None:
    """An item that moved within its prefix would not be nearer to any code than the item that has it."""
    x, quantizer = embeddings("normal", seed, count), build(name, seed)
    ids = SemanticIDs.from_quantizer(quantizer, x)
    nearest = quantizer.encode(x).reshape(count, -1)
    own = errors(ids, x, ids.codes)
    stayed = (ids.codes == nearest).all(1)
    for item in (~stayed & (ids.codes[:, :-1] == nearest[:, :-1]).all(1)).nonzero()[:, 0].tolist():
        for code in range(ids.sizes[-1]):
            codes = torch.tensor([[*ids.codes[item, :-1].tolist(), code]])
            wanted = errors(ids, x[[item]], codes)[0]
            if wanted < own[item] * (1 - 1e-5):  # float32 residuals and codes of about 1
                (holder,) = ids.items_with(codes[0].tolist())
                assert stayed[holder] or own[holder] <= wanted * (1 + 1e-5) + 1e-6


@given(name=names, seed=seeds, count=counts)
def test_an_auction_costs_no_more_than_the_next_code(name: str, seed: int, count: int) -> None:
    """Where both policies leave all items under their prefix, whose totals the auction minimizes."""
    x, quantizer = embeddings("normal", seed, count), build(name, seed)
    tables = [SemanticIDs.from_quantizer(quantizer, x, collisions=collisions) for collisions in DISTINCT]
    nearest = quantizer.encode(x).reshape(count, -1)
    if all(torch.equal(ids.codes[:, :-1], nearest[:, :-1]) for ids in tables):
        next_code, auction = (errors(ids, x, ids.codes).sum() for ids in tables)
        assert auction <= next_code * (1 + 1e-5) + 1e-6


@every_policy
@examples(15)
@given(name=names, seed=seeds, count=counts, order=st.randoms(use_true_random=False))
def test_the_order_of_the_items_does_not_matter(
    collisions: str, name: str, seed: int, count: int, order: Random
) -> None:
    x, quantizer = embeddings("normal", seed, count), build(name, seed)
    shuffled = order.sample(range(count), count)
    ids = SemanticIDs.from_quantizer(quantizer, x, collisions=collisions)
    others = SemanticIDs.from_quantizer(quantizer, x[shuffled], items=shuffled, collisions=collisions)
    assert all(ids[item] == others[item] for item in ids)


@every_policy
@examples(15)
@given(name=names, kind=kinds, seed=seeds, parts=st.lists(st.integers(1, 8), min_size=1, max_size=4))
def test_new_items_never_move_those_that_are_there(
    collisions: str, name: str, kind: str, seed: int, parts: list[int]
) -> None:
    x = embeddings(kind, seed, sum(parts[:3]))
    blocks = x.split(parts[:3])
    ids = SemanticIDs.from_quantizer(build(name, seed), blocks[0], collisions=collisions)
    for block in blocks[1:]:
        before = {item: ids[item] for item in ids}
        ids.extend(block)
        assert all(ids[item] == codes for item, codes in before.items())
    assert list(ids) == list(range(len(x)))
    assert collisions == "keep" or are_distinct(ids.codes)


@given(name=names, kind=kinds, seed=seeds, count=st.integers(1, 40), first=st.integers(0, 40))
def test_an_extra_level_counts_the_items_with_the_same_codes(
    name: str, kind: str, seed: int, count: int, first: int
) -> None:
    """In several steps as well, and for any number of items."""
    x, quantizer = embeddings(kind, seed, count), build(name, seed)
    ids = SemanticIDs(quantizer, collisions="extra_level")
    for block in (x[:first], x[first:]):
        if len(block):
            ids.extend(block)
    assert torch.equal(ids.codes[:, :-1], quantizer.encode(x).reshape(count, -1))
    for codes in ids.codes[:, :-1].unique(dim=0).tolist():
        numbers = [ids[item][-1] for item in ids.items_with(codes)]
        assert numbers == list(range(len(numbers)))


@given(name=names, kind=kinds, seed=seeds, count=counts)
def test_keep_gives_the_nearest_codes(name: str, kind: str, seed: int, count: int) -> None:
    x, quantizer = embeddings(kind, seed, count), build(name, seed)
    ids = SemanticIDs.from_quantizer(quantizer, x, collisions="keep")
    assert torch.equal(ids.codes, quantizer.encode(x).reshape(count, -1))
    shared = [sum(ids[other] == ids[item] for other in ids) > 1 for item in ids]
    assert ids.collision_rate == ids.collision_rate_before == sum(shared) / count
