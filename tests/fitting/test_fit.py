"""The laws of `fit`, for every composition of tables, whatever the form and the order of the data."""

import copy
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import quantizers
from quantizers.clustering.kmeans import kmeans
from quantizers.fitting import Progress, encode_vectors
from tests.fitting.data import DIM, FITTED, SIZE, build, error, vectors

ROUNDING = 1e-5  # relative, of sums over a few thousand float32 numbers

settings_of_fit = pytest.mark.parametrize("setting", FITTED)
methods = pytest.mark.parametrize("method", ["nested", "lloyd", "minibatch"])


@settings_of_fit
def test_the_report_is_what_the_quantizer_does(setting: str) -> None:
    quantizer, x = build(setting), vectors()
    report = quantizers.fit(quantizer, x, epochs=3, batch_size=300)
    indices = quantizer.encode(x).reshape(len(x), -1)
    assert report.count == len(x)
    assert report.skipped == 0
    assert report.inertia == pytest.approx(error(quantizer, x), rel=ROUNDING)
    assert report.variance == pytest.approx(float((x - x.mean(0)).square().sum(-1).mean()), rel=ROUNDING)
    assert [use.size for use in report.codebooks] == list(quantizer.codebook_sizes)
    for use, column in zip(report.codebooks, indices.T, strict=True):
        counts = column.bincount()
        shares = counts[counts > 0] / len(x)
        assert use.used == len(shares)
        assert use.entropy == pytest.approx(float(-(shares * shares.log2()).sum()), rel=ROUNDING)
        assert use.perplexity == pytest.approx(2**use.entropy, rel=ROUNDING)


@settings_of_fit
def test_the_error_is_near_that_of_k_means_in_memory(setting: str) -> None:
    fitted, initialized, x = build(setting), build(setting), vectors(2000)
    quantizers.fit(fitted, x, epochs=20)
    initialized.initialize_from(x)
    # k-means ends in one of many minima. Those from several seeds differ by a few hundredths on these vectors.
    assert error(fitted, x) < 1.15 * error(initialized, x)


@methods
def test_the_codes_are_the_means_of_their_vectors(method: str) -> None:
    quantizer, x = build("vq"), vectors()
    quantizers.fit(quantizer, x, method=method, epochs=30)
    indices = quantizer.encode(x)
    means = torch.stack([x[indices == code].mean(0) for code in range(SIZE)])
    # The last step moved codes to means; their vectors may have changed since.
    distance = (means - quantizer.codebook).square().sum(-1).mean()
    assert distance < 0.01 * error(quantizer, x)


def test_the_inertia_never_grows_from_pass_to_pass() -> None:
    for method in ("nested", "lloyd"):
        report = quantizers.fit(build("vq"), vectors(), method=method, epochs=20)
        found = [each.inertia for each in report.history if each.phase == "all vectors"]
        assert all(after <= before * (1 + ROUNDING) for before, after in itertools.pairwise(found))


@given(st.sampled_from(sorted(FITTED)), st.integers(17, 400), st.integers(0, 5))
def test_the_size_of_a_block_does_not_matter(setting: str, rows: int, seed: int) -> None:
    x, built = vectors(400, seed), [build(setting), build(setting)]
    reports = [
        quantizers.fit(quantizer, x, epochs=2, seed=seed, batch_size=size)
        for quantizer, size in zip(built, (rows, len(x)), strict=True)
    ]
    # Blocks change the order of float64 sums, which may move a code by a rounding, and a vector at a border.
    assert reports[0].inertia == pytest.approx(reports[1].inertia, rel=1e-2)


@settings_of_fit
def test_equal_arguments_give_equal_codes(setting: str) -> None:
    built = [build(setting), build(setting)]
    for quantizer in built:
        torch.manual_seed(torch.initial_seed() + 1)
        quantizers.fit(quantizer, vectors(), epochs=2, seed=3)
    states = [quantizer.state_dict() for quantizer in built]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_any_form_of_the_data_gives_the_same_codes(tmp_path: Path) -> None:
    x = vectors()
    np.save(tmp_path / "x.npy", x.numpy())
    forms = [x.numpy(), np.load(tmp_path / "x.npy", mmap_mode="r"), tmp_path / "x.npy", list(x.split(130))]
    expected = build("residual")
    quantizers.fit(expected, x, epochs=2)
    for form in forms:
        quantizer = build("residual")
        quantizers.fit(quantizer, form, epochs=2)
        for ours, other in zip(quantizer.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(ours, other)


@methods
@given(
    bad=st.lists(st.integers(0, 299), min_size=1, max_size=30, unique=True),
    value=st.sampled_from([math.nan, math.inf]),
)
def test_vectors_that_are_not_finite_are_left_out_and_named(method: str, bad: list[int], value: float) -> None:
    x = vectors(300)
    x[bad, torch.arange(len(bad)) % DIM] = value
    quantizer = build("residual")
    report = quantizers.fit(quantizer, x, method=method, epochs=1, batch_size=100)
    assert report.skipped == len(bad)
    assert report.skipped_rows == tuple(sorted(bad)[:10])
    assert report.count == 300 - len(bad)
    assert all(parameter.isfinite().all() for parameter in quantizer.parameters())
    assert math.isfinite(report.inertia)


def test_every_code_is_used_where_vectors_allow_it() -> None:
    x = torch.cat([vectors(2000), 100 + 1e-3 * torch.randn(5, DIM)])  # most seeds fall elsewhere
    for seeds in ("k-means++", "random"):
        quantizer = build("vq", codebook_size=64)
        report = quantizers.fit(quantizer, x, method="lloyd", epochs=20, seeds=seeds)
        assert report.codebooks[0].used == 64


def test_codes_of_the_quantizer_are_improved() -> None:
    x, quantizer = vectors(), build("vq")
    quantizer.set_codebook(kmeans(x, SIZE, iterations=1))
    before = error(quantizer, x)
    report = quantizers.fit(quantizer, x, seeds="codebook", epochs=3)
    assert report.history[0].inertia == pytest.approx(before, rel=ROUNDING)
    assert error(quantizer, x) < before


def test_frozen_codes_stay() -> None:
    mask = torch.arange(SIZE) < 5
    quantizer = build("vq", frozen=mask)
    before = quantizer.codebook.detach().clone()
    for method in ("nested", "minibatch"):
        quantizers.fit(quantizer, vectors(), method=method, epochs=2)
        after = quantizer.codebook.detach()
        assert torch.equal(after[mask], before[mask])
        assert not torch.equal(after[~mask], before[~mask])
    residual = build("residual")
    residual.stages[1].freeze()
    before = residual.stages[1].codebook.detach().clone()
    quantizers.fit(residual, vectors(), epochs=1)
    assert torch.equal(residual.stages[1].codebook, before)


def test_float64_vectors_are_compared_in_float64() -> None:
    x = vectors().double() + 1e9  # float32 has steps of 64 here
    quantizer = build("vq").double()
    report = quantizers.fit(quantizer, x, epochs=10)
    expected = quantizers.fit(build("vq").double(), x - 1e9, epochs=10)
    assert report.codebooks[0].used == SIZE
    assert report.inertia > expected.inertia  # the codes of the quantizer are float32


def test_the_progress_is_told() -> None:
    told: list[Progress] = []
    quantizers.fit(build("residual"), vectors(3000), epochs=2, batch_size=250, progress=told.append)
    assert {each.codebook for each in told} == {0, 1, 2}
    assert {"sampling", "growing samples", "all vectors", "encoding"} <= {each.phase for each in told}
    assert all(each.total is None or each.done <= each.total for each in told)
    passes = [each for each in told if each.phase == "all vectors"]
    assert passes[-1].done == 3000
    assert passes[-1].inertia is not None


@settings_of_fit
def test_encode_vectors_gives_the_indices_of_all_blocks(setting: str) -> None:
    quantizer, x = build(setting), vectors(100)
    blocks = list(encode_vectors(quantizer, x, batch_size=33))
    assert [len(block) for block, _ in blocks] == [33, 33, 33, 1]
    assert torch.equal(torch.cat([indices for _, indices in blocks]), quantizer.encode(x))


def test_channels_may_lie_anywhere() -> None:
    x, quantizer = vectors(), quantizers.create("vq", DIM, SIZE, channel_dim=1)
    quantizers.fit(quantizer, x, epochs=1)
    ((_, indices),) = encode_vectors(quantizer, x)
    assert torch.equal(indices, quantizer.encode(x))


@pytest.mark.parametrize(
    ("quantizer", "data", "options", "words"),
    [
        (lambda: "vq", vectors, {}, "expected a quantizer"),
        (lambda: quantizers.create("fsq", 3, levels=[3, 3, 3]), lambda: torch.zeros(9, 3), {}, "no codes to fit"),
        (lambda: quantizers.create("var", DIM, SIZE), vectors, {}, "quantizes maps"),
        (lambda: build("vq").freeze(), vectors, {}, "frozen"),
        (
            lambda: build("vq"),
            lambda: vectors(SIZE - 1),
            {},
            "15 finite vectors, expected at least codebook_size=16",
        ),
        (lambda: build("vq"), lambda: vectors(dim=DIM + 1), {}, "expected 8"),
        (lambda: build("vq"), lambda: torch.full((20, DIM), math.nan), {}, "0 finite vectors"),
        (lambda: build("vq"), vectors, {"method": "em"}, "method is 'em', expected"),
        (lambda: build("vq"), vectors, {"epochs": 0}, "epochs is 0, expected"),
        (lambda: build("vq"), vectors, {"seeds": "first"}, "seeds is 'first', expected"),
    ],
)
def test_what_does_not_fit_is_answered_with_a_sentence(quantizer, data, options, words) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        quantizers.fit(quantizer(), data(), **options)


def test_batches_that_change_from_pass_to_pass_are_refused() -> None:
    class Shuffled:
        def __iter__(self):
            x = vectors()
            return iter(x[torch.randperm(len(x))].split(200))

    with pytest.raises(ValueError, match="shuffle=False"):
        quantizers.fit(build("vq"), Shuffled())


def test_an_error_leaves_a_quantizer_that_works() -> None:
    quantizer, x = build("residual"), vectors()
    untouched = copy.deepcopy(quantizer)

    def stop(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantizers.fit(quantizer, x, progress=stop)
    assert torch.equal(quantizer.encode(x), untouched.encode(x))
