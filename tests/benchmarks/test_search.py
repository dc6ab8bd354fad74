"""Compressed search and semantic IDs: the laws of the numbers, every method, and that a run continues."""

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from typer.testing import CliRunner

from benchmarks.cli.app import app
from benchmarks.offline.vectors import BLOCKS
from benchmarks.search import (
    cached_attention,
    caching,
    compare,
    identifiers,
    measures,
    of_faiss,
    ours,
    plots,
    report,
    run,
)
from benchmarks.search.coders import FAISS, OURS, Coder, Method, Task
from benchmarks.search.data import Split, vectors
from benchmarks.search.items import BY_LIBRARY, KEEP, ItemTask
from benchmarks.search.neighbours import nearest, nearest_other
from benchmarks.search.parts import Parts
from benchmarks.search.settings import Caching, Chosen, Items, Settings

DIM = 8
TINY = Settings(
    kinds=("patches",),
    seeds=(0,),
    dim=DIM,
    train=256,
    base=60,
    queries=20,
    codebooks=(2, 4),
    codebook_size=8,  # not below the beam: there faiss 1.15 returns codes that are far away
    slow_codebooks=(4,),
    qinco_steps=2,
    qinco_batch=16,
)
METHODS = [*ours.METHODS, *of_faiss.METHODS]
seeds = st.integers(0, 2**32 - 1)
all_codes = st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=30).map(torch.tensor)


def split(seed: int = 0) -> Split:
    """Clusters, so that codes have something to find."""
    generator = torch.Generator().manual_seed(seed)
    count = TINY.train + TINY.base + TINY.queries
    centres = torch.randn(12, DIM, generator=generator)
    drawn = centres[torch.randint(12, (count,), generator=generator)]
    drawn = drawn + 0.3 * torch.randn(count, DIM, generator=generator)
    return Split(*drawn.split([TINY.train, TINY.base, TINY.queries]))


def truth(data: Split) -> Tensor:
    return nearest(data.queries, data.base, 1)[:, 0]


@given(seeds)
def test_codes_without_loss_find_every_neighbour(seed: int) -> None:
    data = split(seed)
    found = measures.numbers(Coder("", lambda x: x, lambda codes: codes), data, truth(data))
    assert (found["error"], found["recall_1"], found["recall_10"]) == (0, 1, 1)


@given(seeds, st.floats(0, 10))
def test_recall_grows_with_its_depth_up_to_one(seed: int, noise: float) -> None:
    data = split(seed)
    coder = Coder("", lambda x: x + noise * torch.randn_like(x), lambda codes: codes)
    found = measures.numbers(coder, data, truth(data))
    assert 0 <= found["recall_1"] <= found["recall_10"] <= 1
    assert found["error"] >= 0


@given(seeds)
def test_the_mean_of_all_vectors_has_an_error_of_one(seed: int) -> None:
    base = split(seed).base
    # The mean is rounded to float32 once, which adds its squared error to a variance of about one.
    assert measures.relative_error(base, base.mean(0).expand_as(base)) == pytest.approx(1, abs=1e-6)


@given(seeds)
def test_neighbours_are_those_of_all_distances(seed: int) -> None:
    data = split(seed)
    distances = (data.queries.double()[:, None] - data.base.double()).norm(dim=-1)
    found = distances.gather(1, nearest(data.queries, data.base, 10))
    assert torch.equal(found, distances.sort(1).values[:, :10])  # the search is exact


@given(seeds)
def test_the_nearest_other_vector_is_another(seed: int) -> None:
    base = split(seed).base
    positions = torch.arange(len(base)).flip(0)
    found = nearest_other(positions, base)
    assert (found != positions).all()
    distances = (base[positions].double()[:, None] - base.double()).norm(dim=-1)
    best = distances.sort(1).values[:, 1:2]
    assert torch.equal(distances.gather(1, found[:, None]), best)


@given(all_codes)
def test_collisions_are_items_whose_code_is_not_alone(codes: Tensor) -> None:
    times = Counter(map(tuple, codes.tolist()))
    expected = sum(count for count in times.values() if count > 1) / len(codes)
    assert identifiers.collision_rate(codes) == pytest.approx(expected)


@given(all_codes, st.data())
def test_longer_prefixes_agree_less_often(codes: Tensor, data: st.DataObject) -> None:
    positions = st.lists(st.integers(0, len(codes) - 1), min_size=1)
    items, others = (torch.tensor(data.draw(positions)) for _ in range(2))
    size = min(len(items), len(others))
    found: dict[str, Any] = identifiers.numbers(codes, items[:size], others[:size])
    assert 1 >= found["prefix_1"] >= found["prefix_2"] >= 0
    pairs = list(itertools.product(codes.tolist(), repeat=2))
    for length in (1, 2):
        same = sum(a[:length] == b[:length] for a, b in pairs) / len(pairs)
        assert found[f"chance_{length}"] == pytest.approx(same)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: f"{method.library}-{method.name}")
def test_every_method_encodes_better_with_more_codebooks(method: Method) -> None:
    data = split()
    coders = {count: method.fit(Task(data.train, count, 0, TINY)) for count in (1, 4)}
    for few, many in zip(*coders.values(), strict=True):
        errors = []
        for coder in (few, many):
            decoded = coder.decode(coder.encode(data.train))
            assert decoded.shape == data.train.shape
            errors.append(measures.relative_error(data.train, decoded))
        assert 0 < errors[1] < errors[0] < 1


def test_a_beam_finds_codes_that_are_as_near() -> None:
    data = split()
    greedy, beam = ours.residual(Task(data.train, 4, 0, TINY))
    errors = [measures.relative_error(data.base, each.decode(each.encode(data.base))) for each in (greedy, beam)]
    assert errors[1] <= errors[0]


def test_the_indices_of_faiss_choose_the_codes_that_it_adds() -> None:
    import faiss

    base, stages, bits = split().base, 3, 3
    quantizer = of_faiss.train_residual(split().train, stages, bits, 0)
    books = torch.from_numpy(faiss.vector_to_array(quantizer.codebooks)).reshape(stages, 1 << bits, DIM)
    indices = of_faiss.residual_indices(quantizer, base)
    added = sum(book[column] for book, column in zip(books, indices.T, strict=True))
    decoded = torch.from_numpy(quantizer.decode(quantizer.compute_codes(base.numpy())))
    torch.testing.assert_close(added, decoded, atol=1e-6, rtol=0)  # three terms of about one, rounded twice


@pytest.mark.parametrize("library", BY_LIBRARY)
def test_policies_remove_collisions_at_a_distance(library: str) -> None:
    items = split().base
    rows = {row["policy"]: row for row in BY_LIBRARY[library](ItemTask(items, 3, 8, seed=0, probes=20))}
    assert all(row["collisions"] == 0 for policy, row in rows.items() if policy != KEEP)
    # No prefix has more items than the last level has codes, so an item only moves to a code that is farther.
    assert all(row["error"] >= rows[KEEP]["error"] for row in rows.values())
    assert 0 <= rows[KEEP]["collisions"] <= 1


def test_vectors_are_distinct_and_depend_on_the_seed() -> None:
    drawn = vectors("patches", 500, 64, 0)
    assert len(drawn.unique(dim=0)) == len(drawn) == 500
    assert torch.equal(drawn, vectors("patches", 500, 64, 0))
    assert not torch.equal(drawn, vectors("patches", 500, 64, 1))


CACHE = Caching(
    width=16, layers=2, length=12, steps=3, batch_size=2, windows=8, codebooks=(1, 2, 4), codebook_size=4
)


def test_compressed_keys_and_values_cost_less_with_more_bits() -> None:
    rows = caching.rows(CACHE)
    uncompressed, *others = rows
    assert uncompressed["error"] == uncompressed["attention_error"] == 0
    for method in ("product", "residual"):
        errors = [row["error"] for row in others if row["method"] == method]
        assert len(errors) == len(CACHE.codebooks)
        assert errors == sorted(errors, reverse=True)
    assert all(row["attention_error"] > 0 for row in others)


def test_unchanged_keys_and_values_leave_the_model_as_it_is() -> None:
    model = cached_attention.train(CACHE)
    codes = cached_attention.windows(cached_attention.text()[1], 3, CACHE, torch.Generator().manual_seed(0))
    before = caching.bits_per_byte(model, codes)
    seen: list[int] = []

    def change(layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(layer)
        return key, value

    with cached_attention.changed(model, change):
        assert caching.bits_per_byte(model, codes) == before
    assert seen == [0, 1]
    caching.bits_per_byte(model, codes)
    assert seen == [0, 1]


@given(seeds, st.integers(1, 4))
def test_rounding_moves_a_training_value_by_at_most_half_an_interval(seed: int, bits: int) -> None:
    vectors = split(seed).base.double()
    spread = vectors.amax(0) - vectors.amin(0)
    moved = (caching.rounding(vectors, 2**bits)(vectors) - vectors).abs()
    # Relative roundings of float64, of values whose spread is about their size.
    assert (moved <= spread / 2**bits / 2 * (1 + 1e-12)).all()


def test_each_part_is_measured_once_unless_it_is_damaged(tmp_path: Path) -> None:
    measured = []

    def measure() -> list[dict[str, Any]]:
        measured.append(1)
        return [{"error": len(measured)}]

    def get(parts: Parts, **key: Any) -> int:
        return int(parts.get(key, measure)[0]["error"])

    parts = Parts(tmp_path)
    assert [get(parts, seed=0), get(parts, seed=0), get(parts, seed=1), get(parts, seed=0)] == [1, 1, 2, 1]
    assert get(Parts(tmp_path, fresh=True), seed=0) == 3
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-5])
    assert get(parts, seed=0) == 4


def test_a_library_compared_with_itself_has_ratios_of_one() -> None:
    row = {key: 0.5 for _, key, *_ in compare.COLUMNS}
    place = {"kind": "text", "seed": 0, "bits": 16, "method": "product"}
    both = [{**row, **place, "library": library} for library in (OURS, FAISS)]
    assert compare.ratios(both) == {"product": [dict.fromkeys(row, 1.0)]}
    assert compare.ratios(both[:1]) == {}


OPTIONS = {
    "kinds": "patches",
    "codebooks": "2",
    "items": "300",
    "seeds": "0",
    "train": "300",
    "base": "50",
    "queries": "20",
    "cache-steps": "0",
}


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs `search` with tiny sizes, or others by name. The items are patches: text takes seconds to read."""
    monkeypatch.setitem(BLOCKS, "text", BLOCKS["patches"])

    def invoke(*flags: str, **other: str) -> Any:
        options = {**OPTIONS, "out": str(tmp_path / "out"), **other}
        return CliRunner().invoke(app, ["search", *(f"--{key}={value}" for key, value in options.items()), *flags])

    return invoke


@pytest.mark.slow
def test_the_command_writes_a_report_and_continues(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = command()
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "out/search.json").read_text())
    assert {row["method"] for row in record["search"]} <= plots.COLORS.keys()
    assert {row["library"] for row in record["items"]} == {OURS, FAISS}
    assert (tmp_path / "out" / plots.NAME).stat().st_size > 0
    table = (tmp_path / "out/search.md").read_text()
    assert all(sheet.title in table for sheet in report.sheets(record))
    monkeypatch.setattr(run.measures, "rows", lambda *given: pytest.fail("measured again"))
    again = command()
    assert again.exit_code == 0, again.output
    assert json.loads((tmp_path / "out/search.json").read_text())["search"] == record["search"]


def test_an_interrupted_run_keeps_what_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished: list[Method] = []

    def rows(method: Method, *rest: Any) -> list[dict[str, Any]]:
        if len(finished) == 2:
            raise KeyboardInterrupt
        finished.append(method)
        return [{"library": method.library, "method": method.name}]

    monkeypatch.setattr(run.measures, "rows", rows)
    monkeypatch.setattr(run, "draw", lambda *given: split())
    results = run.run(Chosen(TINY, Items(counts=()), Caching(steps=0)), Parts(tmp_path), lambda name: None)
    assert results.interrupted
    assert [row["method"] for row in results.search] == [method.name for method in finished]


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("kinds", "noise", "expected patches, features, text"),
        ("codebooks", "3", "expected a divisor of --dim, 64"),
        ("train", "100", "at least one vector for each code, 256"),
        ("base", "5", "the largest R of recall@R"),
        ("dim", "24", "got 24"),
        ("items", "255", "a whole number from 256"),
    ],
)
def test_bad_options_are_answered_with_a_sentence(command: Any, option: str, value: str, words: str) -> None:
    result = command(**{option: value})
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())
