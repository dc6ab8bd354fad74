"""Codebook use as a metric: what is counted, and what the counts say."""

import copy
import importlib
import pickle
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics import MetricCollection

import quantizers
from quantizers import metrics
from quantizers.monitoring.usage import CodebookUsage
from tests.synchronisation import NoSynchronisation

ROUNDED = 2.0**-24  # a float64 number as float32

sizes_and_batches = st.lists(st.integers(1, 40), min_size=1, max_size=3).flatmap(
    lambda sizes: st.tuples(
        st.just(sizes),
        st.lists(
            st.lists(st.tuples(*(st.integers(-1, size - 1) for size in sizes)), max_size=20),
            min_size=1,
            max_size=4,
        ),
    )
)


def tensor_of(rows: list[tuple[int, ...]], codebooks: int) -> Tensor:
    indices = torch.tensor(rows, dtype=torch.int64).reshape(-1, codebooks)
    return indices if codebooks > 1 else indices[:, 0]


def by_numpy(column: np.ndarray, size: int) -> dict[str, float]:
    counts = np.bincount(column[column >= 0], minlength=size)
    p = counts[counts > 0] / max(counts.sum(), 1)
    entropy = float(-(p * np.log2(p)).sum())
    return {
        "utilization": np.count_nonzero(counts) / size,
        "perplexity": 2.0**entropy,
        "entropy": entropy,
        "dead_codes": size - np.count_nonzero(counts),
        "vectors": int(counts.sum()),
        "possible": min(1.0, counts.sum() / size),
    }


@given(sizes_and_batches)
def test_it_is_what_numpy_counts_however_the_batches_are_cut(drawn: tuple[list[int], list]) -> None:
    """Of each codebook by itself; −1 does not count; `forward` gives the numbers of its batch."""
    sizes, batches = drawn
    usage, whole = CodebookUsage(sizes), CodebookUsage(sizes)
    for rows in batches:
        of_batch = usage(tensor_of(rows, len(sizes)))
        assert_is(of_batch, rows, sizes)
    every = [row for rows in batches for row in rows]
    whole.update(tensor_of(every, len(sizes))[None].int())
    for metric in (usage, whole):
        assert_is(metric.compute(), every, sizes)
        for column, size, counts in zip(
            np.array(every).reshape(-1, len(sizes)).T, sizes, metric.counts, strict=True
        ):
            assert counts.dtype == torch.int64
            assert counts.tolist() == np.bincount(column[column >= 0].astype(int), minlength=size).tolist()
            assert torch.equal(counts, metrics.code_counts(torch.tensor(column, dtype=torch.int64), size))


def assert_is(results: dict[str, Tensor], rows: list[tuple[int, ...]], sizes: list[int]) -> None:
    columns = np.array(rows, dtype=int).reshape(-1, len(sizes)).T
    expected = [by_numpy(column, size) for column, size in zip(columns, sizes, strict=True)]
    assert list(results) == list(expected[0])
    for key, values in results.items():
        assert values.shape == ((len(sizes),) if len(sizes) > 1 else ())
        assert values.dtype == (torch.int64 if key in ("dead_codes", "vectors") else torch.float32)
        theirs = [numbers[key] for numbers in expected]
        # Beside float32's rounding that of n ≤ 40 terms of an entropy below log₂ 40 in float64, 10⁻¹³ at most.
        assert values.reshape(-1).tolist() == pytest.approx(theirs, rel=ROUNDED + 1e-13, abs=1e-13)


@given(counts=st.lists(st.integers(0, 9), min_size=1, max_size=50))
def test_it_is_the_functions_of_metrics(counts: list[int]) -> None:
    usage = CodebookUsage(len(counts))
    usage.update(torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)))
    results = {key: float(value) for key, value in usage.compute().items()}
    expected = torch.tensor(counts)
    assert results["utilization"] == pytest.approx(metrics.utilization(expected), rel=ROUNDED)
    assert results["entropy"] == pytest.approx(metrics.entropy(expected), rel=ROUNDED)
    assert results["perplexity"] == pytest.approx(metrics.perplexity(expected), rel=ROUNDED)
    assert results["dead_codes"] == counts.count(0)
    assert 1 <= results["perplexity"] <= len(counts)


@given(size=st.integers(1, 3000), times=st.integers(1, 3))
def test_uniform_use_has_the_perplexity_of_the_codebook(size: int, times: int) -> None:
    """Exactly: float64 is within 10⁻¹² of an integer that float32 holds."""
    usage = CodebookUsage(size)
    usage.update(torch.arange(size).repeat(times))
    results = usage.compute()
    assert (float(results["perplexity"]), float(results["utilization"]), int(results["dead_codes"])) == (
        size,
        1,
        0,
    )


@pytest.mark.parametrize("indices", [torch.zeros(0, 2, dtype=torch.int64), torch.full((3, 2), -1)])
def test_where_nothing_counted_all_codes_are_dead(indices: Tensor) -> None:
    usage = CodebookUsage([4, 7])
    usage.update(indices)
    results = {key: values.tolist() for key, values in usage.compute().items()}
    assert results.pop("perplexity") == [1, 1]
    assert results.pop("dead_codes") == [4, 7]
    assert list(results.values()) == 4 * [[0, 0]]


def test_maps_of_any_shape_count_apart() -> None:
    usage = CodebookUsage([3, 2])
    usage.update([torch.tensor([[0, 2], [2, 2]]), torch.tensor(1)])
    assert [counts.tolist() for counts in usage.counts] == [[1, 0, 3], [0, 1]]


@pytest.mark.parametrize("wrong", [-5, -2, 4, 6, 7, 2**62])
def test_an_index_outside_its_codebook_is_an_error_at_compute(wrong: int) -> None:
    """Also one that another codebook has; until the metric is reset."""
    usage = CodebookUsage([7, 4])
    usage.update(torch.tensor([[0, wrong], [6, 3]]))
    with pytest.raises(IndexError, match=r"1 indices of codebook 1 were outside \[−1, 4\)"):
        usage.compute()
    usage.reset()
    usage.update(torch.tensor([[6, 3]]))
    assert usage.compute()["dead_codes"].tolist() == [6, 3]


@pytest.mark.parametrize(
    ("sizes", "indices", "error", "message"),
    [
        (4, torch.zeros(3), TypeError, "indices have dtype torch.float32, expected an integer dtype"),
        (4, torch.zeros(3, dtype=torch.bool), TypeError, "indices have dtype torch.bool"),
        ([4, 4], torch.zeros(3, dtype=torch.int64), ValueError, r"shape \(3,\), expected 2 on the last axis"),
        ([4, 4], torch.tensor(0), ValueError, r"shape \(\), expected 2 on the last axis"),
        (
            [4, 4],
            [torch.tensor(0)],
            ValueError,
            "got 1 tensors of indices for 2 codebooks; expected",
        ),
    ],
)
def test_indices_that_do_not_fit_are_named(sizes: Any, indices: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        CodebookUsage(sizes).update(indices)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: CodebookUsage(0), "codebook_size is 0, expected an integer of at least 1"),
        (lambda: CodebookUsage([]), "codebook_size is empty"),
        (lambda: CodebookUsage([4, 2.5]), "codebook_size is 2.5, expected"),
        (lambda: CodebookUsage(2**24 + 1), f"codebook_size is {2**24 + 1} in 1 codebook"),
        (lambda: CodebookUsage([2**23, 2, 2]), "too large to count code by code"),
        (lambda: CodebookUsage.of(quantizers.LFQ(63, 2**63)), f"codebook_size is {2**63} in 1 codebook"),
        (lambda: CodebookUsage.of(quantizers.Identity(4)), "codebook_size is 0"),
    ],
)
def test_codebooks_that_cannot_be_counted_are_refused(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_it_lives_as_other_metrics_do() -> None:
    """In a collection; copied, pickled, saved, moved, cast and reset."""
    collection = MetricCollection({"fine": CodebookUsage(4), "coarse": CodebookUsage(9)}, prefix="val/")
    collection.update(torch.tensor([0, 0, 3]))
    results = collection.compute()
    assert results["val/fine_dead_codes"] == 2
    assert results["val/coarse_dead_codes"] == 7
    usage = CodebookUsage([4, 2], compute_with_cache=False)
    usage.update(torch.tensor([[0, 1], [0, 0]]))
    usage.half().float()
    for other in (usage.clone(), copy.deepcopy(usage), pickle.loads(pickle.dumps(usage))):
        other.update(torch.tensor([[3, 1]]))
        assert [counts.tolist() for counts in other.counts] == [[2, 0, 0, 1], [1, 2]]
    assert [counts.tolist() for counts in usage.counts] == [[2, 0, 0, 0], [1, 1]]
    merged = usage.clone()
    merged.merge_state(usage)
    assert [counts.tolist() for counts in merged.counts] == [[4, 0, 0, 0], [2, 2]]
    usage.persistent(True)
    again = CodebookUsage([4, 2])
    again.load_state_dict(usage.state_dict())
    assert torch.equal(again.slots, usage.slots)
    usage.reset()
    assert not usage.slots.any()
    assert usage.to("meta").slots.is_meta


def test_counts_stay_whole_numbers_whatever_dtype_is_asked_for() -> None:
    usage = CodebookUsage(4)
    usage.update(torch.tensor([0, 0, 3]))
    for metric in (usage.set_dtype(torch.float16), MetricCollection([usage]).set_dtype("torch.half")):
        metric.update(torch.tensor([0]))
    assert usage.slots.dtype == torch.int64
    assert usage.counts[0].tolist() == [4, 0, 0, 1]
    assert usage.compute()["entropy"].dtype == torch.float32


@pytest.mark.parametrize("sizes", [8, (8, 8, 5)])
def test_it_is_drawn(sizes: Any) -> None:
    """The present values as bars, and values over time as lines, in percent of each codebook."""
    figures = pytest.importorskip("matplotlib.figure", reason="the extra `bench` has it")
    usage, kept = CodebookUsage(sizes), []
    for step in range(3):
        usage.update(torch.full((2,) if sizes == 8 else (2, 3), step))
        kept.append(usage.compute())
    present, over_time = (figures.Figure().subplots() for _ in range(2))
    figure, axes = usage.plot(ax=present)
    assert figure is None
    assert axes is present
    used, even = present.containers
    expected = [100 * share for share in kept[-1]["utilization"].reshape(-1).tolist()]
    assert [bar.get_height() for bar in used] == pytest.approx(expected)
    shares = kept[-1]["perplexity"].reshape(-1) / torch.tensor(sizes)
    assert [bar.get_height() for bar in even] == pytest.approx((100 * shares).tolist())
    usage.plot(kept, ax=over_time)
    codebooks = kept[0]["entropy"].numel()
    assert len(over_time.lines) == 2 * codebooks
    assert over_time.lines[0].get_ydata() == pytest.approx([12.5, 25, 37.5])
    names = ["codes in use", "perplexity"]
    numbered = [f"{number}: {name}" for number in range(codebooks) for name in names]
    assert [line.get_label() for line in over_time.lines] == (names if sizes == 8 else numbered)


def test_it_draws_a_figure_of_its_own() -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot", reason="the extra `bench` has it")
    usage = CodebookUsage([8] * 20)
    usage.update(torch.zeros(4, 20, dtype=torch.int64))
    figure, axes = usage.plot()
    assert axes.figure is figure
    pyplot.close(figure)
    figure, axes = usage.plot([usage.compute()] * 40)
    assert len([line for line in axes.lines if not line.get_label().startswith("_")]) == 4  # first and last
    pyplot.close(figure)
    with pytest.raises(ValueError, match="val is an empty list"):
        usage.plot([], ax=axes)


def test_update_does_not_wait_for_the_device() -> None:
    usage = CodebookUsage([8, 5])
    indices = torch.tensor([[0, 4], [-1, 2]])
    with NoSynchronisation():
        usage.update(indices)
    assert usage.compute()["dead_codes"].tolist() == [7, 3]


def test_a_reset_in_inference_mode_holds_outside() -> None:
    usage = CodebookUsage(4)
    with torch.inference_mode():
        usage.reset()
        usage(torch.tensor([1]))
    usage.update(torch.tensor([1, 2]))
    assert usage.counts[0].tolist() == [0, 2, 1, 0]


def test_without_torchmetrics_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    for name in ("quantizers.monitoring.usage", "quantizers.monitoring.watch"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in ("quantizers.monitoring.usage", "quantizers.monitoring.watch"):
        with pytest.raises(ImportError, match=r"pip install quantizers-torch\[metrics\]"):
            importlib.import_module(name)
