"""What a table of semantic IDs answers."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quantizers.fitting import Progress
from quantizers.item_ids import SemanticIDs, semantic_ids
from quantizers.item_ids.collisions import POLICIES
from quantizers.item_ids.tokens import token, vocabulary
from tests.cases import normal
from tests.item_ids.cases import build, embeddings, kinds, names, seeds


def clustered(count: int = 400, dim: int = 8) -> torch.Tensor:
    """Vectors [count, dim] around 16 centers, which lie in 4 groups."""
    centers = 8 * normal(1, 4, 1, dim) + 2 * normal(2, 1, 4, dim)
    which = torch.arange(count) % 16
    return (centers.flatten(0, 1)[which] + 0.5 * normal(3, count, dim)).float()


def test_items_that_share_more_codes_are_nearer() -> None:
    x = clustered()
    ids = semantic_ids(x, levels=3, codebook_size=8)
    distances = torch.cdist(x.double(), x.double()).square()
    means = []
    for length in range(3):
        prefix = ids.codes[:, :length]
        same = (prefix[:, None] == prefix[None]).all(-1).fill_diagonal_(False)
        means.append(float(distances[same].mean()))
    assert all(shorter > 1.5 * longer for shorter, longer in pairwise(means))


def test_one_call_fits_and_gives_distinct_ids() -> None:
    x = clustered()
    ids = semantic_ids(x, levels=2, codebook_size=(16, 32), items=[f"item {row}" for row in range(400)], seed=3)
    assert ids.sizes == (16, 32)
    assert ids.collision_rate == 0 < ids.collision_rate_before < 1
    value = ids.quantizer.decode(ids.codes)
    assert (x - value).square().mean() < 0.2 * (x - x.mean(0)).square().mean()
    again = semantic_ids(x, levels=2, codebook_size=(16, 32), seed=3)
    assert torch.equal(again.codes, ids.codes)


def test_progress_goes_through_fitting_and_encoding() -> None:
    seen: list[Progress] = []
    semantic_ids(clustered(), levels=2, codebook_size=24, batch_size=100, progress=seen.append)
    assert {(progress.codebook, progress.codebooks) for progress in seen} == {(0, 2), (1, 2)}
    assert [progress.done for progress in seen if progress.phase == "encoding"][-4:] == [100, 200, 300, 400]


@pytest.mark.parametrize("collisions", ["next_code", "auction"])
def test_equal_items_get_distinct_ids(collisions: str) -> None:
    """A catalogue whose texts are missing, say; fitting has one vector for all codes."""
    x = torch.ones(60, 4)
    x[3] = torch.nan
    ids = semantic_ids(x, levels=3, codebook_size=4, collisions=collisions)
    assert len(set(map(ids.__getitem__, ids))) == len(ids) == 59
    assert (ids.collision_rate_before, ids.collision_rate, ids.skipped) == (1, 0, [3])


@given(name=names, kind=kinds, seed=seeds, count=st.integers(1, 24), data=st.data())
def test_prefixes_find_their_items(name: str, kind: str, seed: int, count: int, data: st.DataObject) -> None:
    ids = SemanticIDs.from_quantizer(build(name, seed), embeddings(kind, seed, count), collisions="keep")
    length = data.draw(st.integers(0, len(ids.sizes)))
    prefix = tuple(data.draw(st.integers(-1, 5) | st.just(2**64)) for _ in range(length))
    for codes in (prefix, ids[data.draw(st.sampled_from(ids.items))][:length]):
        having = [item for item in ids if ids[item][:length] == codes]
        assert sorted(ids.items_with(codes)) == having
        assert [ids[item] for item in ids.items_with(codes)] == sorted(ids[item] for item in having)
        if length < len(ids.sizes):
            assert ids.next_codes(codes) == sorted({ids[item][length] for item in having})
        for item in having:
            assert sorted(ids.neighbours(item, length)) == [other for other in having if other != item]


@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=60))
def test_every_code_of_every_level_has_a_token_of_its_own(sizes: list[int]) -> None:
    tokens = vocabulary(sizes)
    assert len(set(tokens)) == len(tokens) == sum(sizes)
    assert tokens == [token(level, code) for level, size in enumerate(sizes) for code in range(size)]


def test_tokens_are_named_by_level_and_code() -> None:
    assert [token(level, 12) for level in (0, 1, 25, 26, 27)] == [
        "<a_12>",
        "<b_12>",
        "<z_12>",
        "<aa_12>",
        "<ab_12>",
    ]
    ids = SemanticIDs.from_quantizer(build("residual", 0), torch.ones(5, 4), collisions="extra_level")
    first, second, third = ids[0][:3]
    assert ids.tokens(0) == [f"<a_{first}>", f"<b_{second}>", f"<c_{third}>", "<d_0>"]
    assert {token for item in ids for token in ids.tokens(item)} <= set(ids.vocabulary())
    assert ids.sizes == (3, 2, 4, 5)


@pytest.mark.parametrize("collisions", ["next_code", "auction", "extra_level"])
def test_files_and_streams_give_the_ids_of_the_tensor(collisions: str, tmp_path: Path) -> None:
    """Whether rows can be read again by position, or by another pass over all; in blocks of any size."""
    x, quantizer = normal(0, 24, 4, dtype=torch.float32), build("residual", 0)
    np.save(tmp_path / "x.npy", x.numpy())
    expected = SemanticIDs.from_quantizer(quantizer, x, collisions=collisions).codes
    for source in (x.numpy(), tmp_path / "x.npy", list(x.split(7))):
        ids = SemanticIDs.from_quantizer(quantizer, source, collisions=collisions, batch_size=5)
        assert torch.equal(ids.codes, expected)


@pytest.mark.parametrize("collisions", ["next_code", "auction", "extra_level", "keep"])
def test_embeddings_that_are_not_finite_have_no_id(collisions: str) -> None:
    x, quantizer = normal(0, 10, 4, dtype=torch.float32), build("residual", 0)
    items = [f"item {row}" for row in range(10)]
    broken = x.clone()
    broken[[3, 7]] = torch.tensor([[torch.nan], [torch.inf]])
    ids = SemanticIDs.from_quantizer(quantizer, broken, items=items, collisions=collisions)
    assert ids.skipped == ["item 3", "item 7"]
    assert ids.items == [item for item in items if item not in ids.skipped]
    whole = [row for row in range(10) if row not in (3, 7)]
    assert torch.equal(ids.codes, SemanticIDs.from_quantizer(quantizer, x[whole], collisions=collisions).codes)
    with pytest.raises(KeyError, match="'item 3' has no ID: its embedding is not finite"):
        ids["item 3"]
    ids.extend(x[[3]], ["item 3"])
    assert ids.skipped == ["item 7"]
    assert "item 3" in ids


def test_numbers_go_on_behind_all_that_are_in_use() -> None:
    x = torch.ones(3, 4)
    x[2] = torch.nan
    ids = SemanticIDs.from_quantizer(build("residual", 0), x)
    ids.extend(torch.ones(2, 4))
    assert (ids.items, ids.skipped) == ([0, 1, 3, 4], [2])
    ids.extend(torch.ones(1, 4), [40])
    ids.extend(torch.ones(1, 4))
    assert ids.items == [0, 1, 3, 4, 40, 41]


def test_the_rate_before_counts_items_as_they_come() -> None:
    x, quantizer = normal(0, 4, 4, dtype=torch.float32), build("vq", 0)
    ids = SemanticIDs.from_quantizer(quantizer, x)
    assert ids.collision_rate_before == 0 or len(set(quantizer.encode(x).tolist())) < 4
    before = ids.collided
    ids.extend(quantizer.decode(ids.codes[:2, 0]))  # the codes of two items that are there
    assert ids.collided == before + 2
    assert ids.collision_rate == 0


def test_any_sequence_of_names_will_do() -> None:
    quantizer, x = build("residual", 0), normal(0, 3, 4, dtype=torch.float32)
    for items in (["a", "b", "c"], ("a", 5, "c"), np.array(["a", "b", "c"]), torch.tensor([7, 2, 9]), range(5, 8)):
        ids = SemanticIDs.from_quantizer(quantizer, x, items=items)
        assert [type(item) for item in ids] == [str if isinstance(item, str) else int for item in items]
        assert list(ids) == list(getattr(items, "tolist", lambda items=items: items)())


def test_a_table_describes_itself() -> None:
    ids = SemanticIDs.from_quantizer(build("residual", 0), torch.ones(3, 4))
    assert repr(ids) == "SemanticIDs(3 items, 3 · 2 · 4 codes, collisions='next_code')"
    assert len(ids) == 3
    assert 2 in ids
    assert 3 not in ids


@pytest.mark.parametrize("collisions", sorted(POLICIES))
def test_the_default_device_does_not_matter(collisions: str) -> None:
    x, quantizer = normal(0, 24, 4, dtype=torch.float32), build("residual", 0)
    expected = SemanticIDs.from_quantizer(quantizer, x, collisions=collisions)
    with torch.device("meta"):
        ids = SemanticIDs.from_quantizer(quantizer, x, collisions=collisions)
        assert all(ids[item] == expected[item] and item in ids.items_with(ids[item]) for item in expected)
        assert ids.collision_rate == expected.collision_rate
        assert ids.next_codes() == expected.next_codes()
        assert ids.sizes == expected.sizes
