"""The vectors of the offline benchmark, and the sizes that it measures."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.errors import InputError
from benchmarks.offline import cells, features, patches, text, vectors
from benchmarks.offline.cells import GROUPS, KMEANS, RESIDUAL, STREAM, Cell


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A training of one step, and a short text."""
    hashed = text._hashed()[:50_000]
    monkeypatch.setattr(text, "_hashed", lambda: hashed)
    monkeypatch.setattr(text, "SAMPLE", 1024)
    monkeypatch.setattr(features, "STEPS", 1)
    features._encoder.cache_clear()
    yield
    features._encoder.cache_clear()


def test_every_source_is_known() -> None:
    assert tuple(vectors.BLOCKS) == cells.SOURCES


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("source", cells.SOURCES)
@pytest.mark.parametrize("dim", [64, 256, 768])
def test_vectors_are_finite_different_and_the_same_again(source: str, dim: int) -> None:
    count = 2 * patches.BLOCK + 5 if (source, dim) == ("patches", 64) else 300
    first, again = (np.concatenate(list(vectors.BLOCKS[source](count, dim))) for _ in range(2))
    assert first.shape == (count, dim)
    assert first.dtype == np.float32
    assert np.isfinite(first).all()
    assert len(np.unique(first, axis=0)) > 0.9 * count  # photographs contain some equal patches
    np.testing.assert_array_equal(first, again)


def test_patches_lie_in_the_range_of_pixels() -> None:
    (block,) = patches.blocks(500, 64)
    assert block.min() >= -1
    assert block.max() <= 1
    assert block.max() - block.min() > 1


@pytest.mark.usefixtures("brief")
def test_passages_have_at_most_unit_norm_and_all_of_it_with_every_bucket() -> None:
    (few,) = text.blocks(100, 64)
    (every,) = text.blocks(100, text.BUCKETS)
    assert (np.linalg.norm(few, axis=1) <= 1 + 1e-5).all()
    # A rotation in float32: BUCKETS products, each rounded.
    np.testing.assert_allclose(np.linalg.norm(every, axis=1), 1, atol=text.BUCKETS * 2**-24)
    np.testing.assert_allclose(every[:, :64], few, atol=text.BUCKETS * 2**-24)


def test_neighbourhoods_hold_every_feature_once() -> None:
    maps = torch.arange(2 * 3 * 4 * 6.0).reshape(2, 3, 4, 6)
    found = features.neighbourhoods(maps, (2, 3))
    assert found.shape == (2 * 2 * 2, 3 * 2 * 3)
    assert found.flatten().sort().values.equal(maps.flatten())
    assert found[0].equal(maps[0, :, :2, :3].flatten())


@pytest.mark.parametrize(("source", "dim"), [("patches", 65), ("features", 65), ("text", text.BUCKETS + 1)])
def test_a_dimension_without_vectors_is_refused(source: str, dim: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=str(dim)):
        vectors.written(tmp_path, source, 10, dim)
    assert not list(tmp_path.iterdir())


def test_vectors_are_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = [np.ones((2, 3), np.float32), np.zeros((1, 3), np.float32)]
    calls: list[tuple[int, int]] = []
    monkeypatch.setitem(vectors.BLOCKS, "patches", lambda n, d: iter(calls.append((n, d)) or blocks))
    path = vectors.written(tmp_path, "patches", 3, 3)
    np.testing.assert_array_equal(np.load(path), np.concatenate(blocks))
    assert vectors.written(tmp_path, "patches", 3, 3) == path
    assert calls == [(3, 3)]
    with pytest.raises(RuntimeError, match="3 vectors, expected 4"):
        vectors.written(tmp_path, "patches", 4, 3)
    assert list(tmp_path.iterdir()) == [path]


@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 5))
def test_seeds_are_distinct_vectors(
    tmp_path_factory: pytest.TempPathFactory, n: int, size: int, seed: int
) -> None:
    values = np.random.default_rng(seed).integers(0, 3, (n, 2)).astype(np.float32)
    path = tmp_path_factory.getbasetemp() / "few.npy"
    np.save(path, values)
    found = values[vectors.distinct_positions(path, size, seed)]
    assert len(np.unique(found, axis=0)) == len(found)
    if n <= 10 * size:  # all vectors were drawn
        assert len(found) == min(size, len(np.unique(values, axis=0)))


# Cells


@given(
    st.sampled_from([KMEANS, STREAM]),
    st.sampled_from(cells.SOURCES),
    st.integers(1, 999),
    st.integers(1, 999),
    st.integers(1, 999),
)
def test_a_cell_is_read(kind: str, source: str, n: int, d: int, k: int) -> None:
    word = f"{kind}:{source}:{n}x{d}x{k}"
    if k > n:
        with pytest.raises(InputError, match="no more codes than vectors"):
            cells.parse(word)
    else:
        assert cells.parse(word) == Cell(kind, source, n, d, k)


@pytest.mark.parametrize(
    "word",
    ["", "1e9", "kmeans", "kmeans:text:10x2", "kmeans:noise:10x2x2", "residual:text:10x2x2", "kmeans:text:10x0x2",
     "residual:text:100x8x2x9", "product:text:100x8x3x8", "kmeans:text:10x2x2x2"],
)  # fmt: skip
def test_other_words_are_refused(word: str) -> None:
    with pytest.raises(InputError, match="--cells: got"):
        cells.parse(word)


def test_groups_and_cells_are_chosen_once() -> None:
    assert cells.choose([]) == tuple(cell for group in GROUPS.values() for cell in group)
    assert cells.choose(["1e7", "residual:text:100x8x2x16", "1e7"]) == (
        *GROUPS["1e7"],
        Cell(RESIDUAL, "text", 100, 8, 16, codebooks=2),
    )


def test_the_grid_is_complete() -> None:
    """Every D meets every K, and every source meets each of both."""
    for key in ("d", "k"):
        pairs = {(cell.source, getattr(cell, key)) for cell in cells.SMALL}
        assert len(pairs) == 9
    assert len({(cell.d, cell.k) for cell in cells.SMALL}) == 9


@given(st.integers(1, 10**7), st.integers(1, 768), st.integers(1, 4096))
def test_iterations_stay_within_their_limits(n: int, d: int, k: int) -> None:
    cell = Cell(KMEANS, "text", n, d, k)
    for iterations, most, work in (
        (cell.iterations, cells.MOST_ITERATIONS, cells.MULTIPLICATIONS),
        (cell.iterations_from_seeds, cells.MOST_FROM_SEEDS, cells.FEWER_MULTIPLICATIONS),
    ):
        assert cells.LEAST <= iterations <= most
        assert iterations == cells.LEAST or iterations * cell.per_iteration <= work
        assert iterations == most or (iterations + 1) * cell.per_iteration > work
