"""A sample depends on the seed only, every row is as likely as any other, and the slices of ranks make a block."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from quantizers.vectors import open_vectors, sampling, smallest
from quantizers.vectors.parts import Part
from quantizers.vectors.sampling import draw_keys, merge_samples, sample
from tests.vector_sources.sources import Array, arrays, expected, npy

seeds = st.integers(-(2**63), 2**64 - 1)
ranks_of = st.integers(1, 5)


@pytest.fixture(autouse=True)
def _several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "KEY_BLOCK", 8)
    monkeypatch.setattr(smallest, "WAITING", 3)


def defined(rows: Tensor, count: int, seed: int) -> Tensor:
    """The positions of a sample by its definition: those of the smallest keys among the finite rows."""
    finite = rows.isfinite().all(-1).nonzero()[:, 0]
    return finite[draw_keys(seed, 0, len(rows))[finite].argsort()][:count]


@given(
    array=arrays(),
    count=st.integers(1, 70),
    seed=seeds,
    ranks=ranks_of,
    kind=st.sampled_from(["memory", "file", "columns", "batches"]),
)
def test_a_sample_depends_on_the_seed_only(
    array: Array, count: int, seed: int, ranks: int, kind: str, tmp_path: Path
) -> None:
    data = {
        "memory": lambda: torch.from_numpy(array),
        "file": lambda: npy(tmp_path, array),
        "columns": lambda: npy(tmp_path, np.asfortranarray(array)),
        "batches": lambda: [array[:5], array[5:]],
    }[kind]()
    vectors, rows = open_vectors(data), expected(array)
    positions = defined(rows, count, seed)
    parts = [sample(vectors, count, seed, rank=rank, ranks=ranks) for rank in range(ranks)]
    whole = merge_samples(parts[::-1], count)
    assert torch.equal(whole.positions, positions)
    assert torch.equal(whole.rows, rows[positions])
    assert torch.equal(whole.keys, draw_keys(seed, 0, len(rows))[positions])


@pytest.mark.parametrize("seeks", [True, False])
def test_a_sample_of_mostly_invalid_rows(seeks: bool) -> None:
    """So many that a few spare positions cannot make up for them."""
    rows = torch.full((600, 2), torch.nan)
    rows[::60] = torch.randn(10, 2)
    vectors = open_vectors(rows if seeks else [rows[:100], rows[100:]])
    for count in (1, 7, 40):
        assert torch.equal(sample(vectors, count, 5).positions, defined(rows, count, 5))


def test_every_row_is_as_likely_as_any_other() -> None:
    """Of 10 rows 3 are drawn, 600 times: a row is drawn 180 times, with a standard deviation of √(600·0.3·0.7)."""
    vectors = open_vectors(torch.arange(10.0)[:, None])
    drawn = torch.zeros(10)
    first = torch.zeros(10)
    for seed in range(600):
        positions = sample(vectors, 3, seed).positions
        drawn[positions] += 1
        first[positions[0]] += 1
    assert (drawn - 180).abs().max() < 5 * (600 * 0.3 * 0.7) ** 0.5
    assert (first - 60).abs().max() < 5 * (600 * 0.1 * 0.9) ** 0.5  # their order is random, too


@given(seed=seeds, start=st.integers(0, 2**40), size=st.integers(0, 50), skipped=st.integers(0, 50))
def test_a_key_depends_on_its_position_only(seed: int, start: int, size: int, skipped: int) -> None:
    keys = draw_keys(seed, start, start + skipped + size)
    assert torch.equal(draw_keys(seed, start + skipped, start + skipped + size), keys[skipped:])
    assert (keys >= 0).all()


def test_keys_are_distinct_and_use_all_bits() -> None:
    """Each of the 63 bits is set in half of the keys, and equal in half of all neighbours."""
    keys = draw_keys(3, 0, 2**16)
    assert len(keys.unique()) == len(keys)
    bits = (keys[:, None] >> torch.arange(63)) & 1
    deviation = 5 * (2**16 * 0.25) ** 0.5
    assert (bits.sum(0) - 2**15).abs().max() < deviation
    assert ((bits[::2] ^ bits[1::2]).sum(0) - 2**14).abs().max() < deviation
    assert not torch.equal(draw_keys(4, 0, 100), keys[:100])


@given(array=arrays(), rows=st.integers(1, 70), ranks=ranks_of, streamed=st.booleans())
def test_slices_of_all_ranks_make_each_block(array: Array, rows: int, ranks: int, streamed: bool) -> None:
    vectors = open_vectors([array[:7], array[7:]] if streamed else array)
    parts: list[Iterator[tuple[int, Tensor]]] = [
        Part(vectors, rank, ranks).located_blocks(rows) for rank in range(ranks)
    ]
    first = 0
    for block, *slices in zip(vectors.blocks(rows), *parts, strict=True):
        assert torch.equal(torch.cat([part for _, part in slices]).nan_to_num(), block.nan_to_num())
        for position, part in slices:
            assert position == first
            first += len(part)
        sizes = [len(part) for _, part in slices]
        assert max(sizes) - min(sizes) <= 1
    assert first == len(array)


def test_a_rank_must_exist() -> None:
    vectors = open_vectors(torch.ones(3, 2))
    with pytest.raises(ValueError, match="rank is 2, expected a number below ranks=2"):
        Part(vectors, 2, 2)
    with pytest.raises(ValueError, match="count is 0, expected an integer of at least 1"):
        sample(vectors, 0, 1)
