"""Splitting of strong codes: which, into what, and that no vector is lost."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import quantizers
from quantizers import CodeSplitting, EMAVectorQuantizer, VectorQuantizer
from tests.cases import DIM, Case, assert_same_state, batch, cases_where, state_of
from tests.effort import examples
from tests.training.test_replacement import optimizer_of, train_step

EPS = torch.finfo(torch.float32).eps

with_tables = cases_where(lambda case: case.has_tables)


@examples(20)
@given(
    size=st.integers(2, 12),
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    threshold=st.sampled_from([0.0, 0.3, 0.9, 2.0]),
    decay=st.sampled_from([0.0, 0.5, 0.9]),
    seed=st.integers(0, 999),
)
def test_a_strong_code_becomes_two_and_no_vector_is_lost(
    size: int, counts: list[int], threshold: float, decay: float, seed: int
) -> None:
    """By the running use, counted in float64 beside it: its sum stays, and the mean of two halves is the whole."""
    torch.manual_seed(seed)
    quantizer = EMAVectorQuantizer(2, size, decay=0.9)
    splitting = CodeSplitting(quantizer, optimizer_of(quantizer), threshold=threshold, decay=decay)
    use = torch.ones(size, dtype=torch.float64)
    for count in counts:
        x = torch.randn(count, 2)
        indices = quantizer(x).indices
        use = decay * use + (1 - decay) * size * indices.bincount(minlength=size) / count
        codes, sizes = quantizer.embedding.clone(), quantizer.cluster_size.clone()
        moved = splitting.step()
        if ((use - threshold).abs() < 1e-5).any() or ((use - max(1.0, 2 * threshold)).abs() < 1e-5).any():
            return  # rounding decides
        now = splitting.state_dict()[""].double()
        # Use is about `size` in total, and each of its sums and products rounds.
        assert float(now.sum()) == pytest.approx(size, rel=1e-5)
        weak, strong = use < threshold, use >= max(1.0, 2 * threshold)
        changed = (quantizer.embedding != codes).any(-1)
        assert not (changed & ~weak & ~strong).any(), "a code in between moved"
        assert moved <= min(weak.sum(), strong.sum())
        assert (changed & strong).sum() == moved, "a strong code was split twice, or stayed"
        torch.testing.assert_close(
            quantizer.cluster_size.double().sum(), sizes.double().sum(), rtol=8 * EPS, atol=0.0
        )
        for one in (changed & strong).nonzero().flatten().tolist():
            others = (changed & weak).nonzero().flatten()
            middle = (quantizer.embedding[others].double() + quantizer.embedding[one].double()) / 2
            # e + δ and e − δ round once each, so that their mean is e up to one rounding of the larger.
            bound = EPS * quantizer.embedding[[one, *others.tolist()]].abs().max()
            other = others[((middle - codes[one]).abs() <= bound).all(-1)]
            assert len(other) >= 1, "the mean of the halves is another code"
            assert (quantizer.cluster_size[other] == quantizer.cluster_size[one]).any()
            assert (now[other] == now[one]).any()
            assert now[one] >= threshold, "a half is weak"
        assert torch.equal(
            quantizer.embedding_sum[changed],
            quantizer.cluster_size[changed, None] * quantizer.embedding[changed],
        )
        use = torch.where(changed, now, use)


def test_the_halves_stand_along_the_widest_spread() -> None:
    """At the means of the halves of a normal distribution, so that both get vectors, and the error falls."""
    torch.manual_seed(0)
    spread = torch.tensor([0.1, 3.0, 0.1, 0.1])
    x = 5 + spread * batch(4000)
    quantizer = VectorQuantizer(DIM, 2)
    quantizer.set_codebook(torch.stack([x.mean(0), torch.full((DIM,), 99.0)]))
    splitting = CodeSplitting(quantizer, optimizer_of(quantizer), decay=0.0)
    before = (quantizer(x).quantized - x).square().sum(-1).mean()
    assert splitting.step() == 1
    codes = quantizer.embedding.detach()
    along = (codes[0] - codes[1]) / 2
    assert float(along[1].abs()) == pytest.approx(0.8 * float(x[:, 1].std(correction=0)), rel=1e-3)
    assert along[[0, 2, 3]].norm() < 0.01 * along.norm()
    counts = quantizer(x).indices.bincount(minlength=2)
    assert (counts > 1900).all()
    after = (quantizer(x).quantized - x).square().sum(-1).mean()
    # σ² falls by 2aσ√(2/π) − a² with a = 0.8 σ, to 1 − 2/π = 0.363 of it, and the sample adds its own error.
    assert float(after / before) == pytest.approx(1 - 2 / math.pi, abs=0.05)


@with_tables
def test_splitting_brings_codes_into_use_and_ends(case: Case) -> None:
    """In every table, alone or inside others; and once no code is weak, every code keeps its bits."""
    torch.manual_seed(0)
    quantizer = case.build()
    optimizer = optimizer_of(quantizer)
    splitting = CodeSplitting(quantizer, optimizer, threshold=0.9, decay=0.0)
    x = batch(400)
    moved, used = [], []
    for _ in range(4):
        train_step(quantizer, optimizer, x)
        columns = quantizer.encode(x).reshape(len(x), -1).unbind(1)
        used.append(sum(column.unique().numel() for column in columns))
        moved.append(splitting.step())
    tables = splitting._tables.values()
    uses_all_alike = case.sample.index_depends_on_batch or case.sample.draws_in_training
    if not uses_all_alike and case.choice != "product":  # by which all vectors of a code may lie on one side of it
        assert moved[0] > 0
    assert all(table.codebook.isfinite().all() for table in tables)
    if case.choice != "product" and not case.sample.draws_in_training:
        assert used[-1] >= used[0]
    for use in splitting._use.values():
        use.fill_(1.0)
    splitting.decay = 0.99  # no code falls to it in one step
    train_step(quantizer, optimizer, x)
    before = state_of(quantizer)
    assert splitting.step() == 0
    assert_same_state(before, state_of(quantizer))


@with_tables
def test_frozen_codes_are_not_split(case: Case) -> None:
    torch.manual_seed(0)
    quantizer = case.build()
    splitting = CodeSplitting(quantizer, optimizer_of(quantizer), threshold=0.3, decay=0.0)
    quantizer.freeze()
    before = state_of(quantizer)
    quantizer(batch(400))
    assert splitting.step() == 0
    assert_same_state(before, state_of(quantizer))


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_a_code_whose_vectors_are_equal_or_on_one_side_is_not_split(spread: float) -> None:
    """Splitting it would leave one half without vectors."""
    quantizer = VectorQuantizer(DIM, 4)
    splitting = CodeSplitting(quantizer, optimizer_of(quantizer), decay=0.0)
    before = state_of(quantizer)
    quantizer(9.1 + spread * torch.linspace(0, 1, 10)[:, None].expand(-1, DIM))
    assert splitting.step() == 0
    assert_same_state(before, state_of(quantizer))


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_the_next_step_of_the_averages_keeps_the_halves(distance: str) -> None:
    """Up to the smoothing, N̂ = (N + ε) / (1 + Kε/ΣN): a forward without their vectors does not undo the split."""
    torch.manual_seed(0)
    quantizer = EMAVectorQuantizer(DIM, 16, distance=distance)  # type: ignore[arg-type]
    splitting = CodeSplitting(quantizer, optimizer_of(quantizer), threshold=0.5, decay=0.0)
    quantizer(batch(200))
    assert splitting.step() > 0
    codes, sizes = quantizer.embedding.clone(), quantizer.cluster_size.clone()
    chosen = quantizer(-5 * torch.ones(1, DIM)).indices
    stayed = torch.arange(16) != chosen
    allowed = (1e-5 * (1 / sizes.min() + 16 / sizes.sum()) + 20 * EPS) * codes.abs().amax()
    assert (quantizer.embedding - codes)[stayed].abs().max() <= allowed


def test_the_optimizer_starts_again_for_both_halves() -> None:
    torch.manual_seed(0)
    quantizer = VectorQuantizer(DIM, 16)
    optimizer = optimizer_of(quantizer)
    splitting = CodeSplitting(quantizer, optimizer, threshold=0.5, decay=0.0)
    for seed in range(3):
        train_step(quantizer, optimizer, 3 * batch(60, seed=seed))
    before = quantizer.embedding.detach().clone()
    assert splitting.step() > 0
    moved = (quantizer.embedding != before).any(-1)
    moments: Tensor = optimizer.state[quantizer.embedding]["exp_avg_sq"]
    assert not moments[moved].any()
    assert moments[~moved].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": -0.1}, "threshold is -0.1, expected"),
        ({"threshold": math.nan}, "threshold is nan, expected"),
        ({"offset": 0.0}, "offset is 0.0, expected"),
        ({"offset": math.inf}, "offset is inf, expected"),
        ({"decay": 1.0}, "decay is 1.0, expected"),
    ],
)
def test_wrong_options_are_named(options: dict[str, float], message: str) -> None:
    quantizer = VectorQuantizer(DIM, 4)
    with pytest.raises(ValueError, match=message):
        CodeSplitting(quantizer, optimizer_of(quantizer), **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="has no codes that can be replaced"):
        CodeSplitting(quantizers.create("fsq", dim=3, levels=(3, 3, 3)), optimizer_of(quantizer))
