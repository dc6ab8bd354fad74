"""The filters of sampling as laws of logits: what stays, how much of it, and that something does."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.models.sampling import apply_temperature, draw, filter_logits, keep_top_k, keep_top_p

EPS = torch.finfo(torch.float64).eps


def rows(elements: st.SearchStrategy[float]) -> st.SearchStrategy[Tensor]:
    return st.lists(elements, min_size=1, max_size=8).map(lambda row: torch.tensor(row, dtype=torch.float32))


whole = rows(st.integers(-3, 3))  # many are equal
logits_of_any_kind = whole | rows(st.floats(-80, 80, width=32))


def check_kept(before: Tensor, after: Tensor) -> list[bool]:
    """Which codes stay: with their logits as they were, largest first, of equal ones the lowest codes."""
    kept = (after > -torch.inf).tolist()
    for logit, result, stays in zip(before.tolist(), after.tolist(), kept, strict=True):
        assert result == (logit if stays else -math.inf)
    ranked = sorted(range(len(kept)), key=lambda code: (-before[code], code))
    assert [kept[code] for code in ranked] == sorted(kept, reverse=True)
    assert any(kept)
    return kept


@given(logits=logits_of_any_kind, k=st.integers(1, 10))
def test_top_k_keeps_that_many(logits: Tensor, k: int) -> None:
    assert sum(check_kept(logits, keep_top_k(logits, k))) == min(k, len(logits))


@given(logits=logits_of_any_kind, p=st.floats(0, 1, exclude_min=True))
def test_top_p_keeps_the_smallest_set_of_that_mass(logits: Tensor, p: float) -> None:
    kept = check_kept(logits, keep_top_p(logits, p))
    if p == 1:
        assert all(kept)
        return
    weights = [math.exp(logit - max(logits.tolist())) for logit in logits.tolist()]
    mass = sorted((w / math.fsum(weights) for w, stays in zip(weights, kept, strict=True) if stays), reverse=True)
    # Each probability has an exponential, a sum of K and a quotient; their sum K roundings more, of at most 1.
    tolerance = (2 * len(kept) + 4) * EPS
    assert math.fsum(mass) >= p - tolerance
    assert math.fsum(mass[:-1]) <= p + tolerance  # without the least of them it is too little


@pytest.mark.parametrize(("p", "count"), [(0.25, 1), (0.26, 2), (0.5, 2), (0.75, 3), (0.76, 4), (1e-300, 1)])
def test_top_p_of_equal_codes_keeps_the_first(p: float, count: int) -> None:
    """Four probabilities of 1/4 have exact sums: a mass of exactly p is enough."""
    kept = keep_top_p(torch.zeros(3, 4), p) == 0
    assert torch.equal(kept, (torch.arange(4) < count).expand(3, -1))


def test_top_p_of_one_keeps_what_is_too_rare_for_a_sum() -> None:
    logits = torch.tensor([0.0, -80.0])
    assert torch.equal(keep_top_p(logits, 1.0), logits)
    assert torch.equal(keep_top_p(logits, 1 - 1e-9), torch.tensor([0.0, -torch.inf]))


@given(logits=logits_of_any_kind, temperature=st.floats(0.05, 20))
def test_temperature_is_a_power_of_the_probabilities(logits: Tensor, temperature: float) -> None:
    """p_i^(1/T) / Σ_j p_j^(1/T): the odds of two codes are those of before to the power 1/T."""
    exact = logits.double()
    result = apply_temperature(exact, temperature)
    odds = exact[:, None] - exact
    # Differences of numbers below 160, of which the subtraction of the maximum, the quotient and ours round each.
    tolerance = 8 * 160 * EPS / min(temperature, 1)
    assert ((result[:, None] - result) - odds / temperature).abs().max() <= tolerance


@given(logits=whole)
def test_the_limit_of_cold_is_argmax(logits: Tensor) -> None:
    """At 10⁻³ a difference of 1 is one of e^(−1000), which no float holds: bit for bit the limit at 0."""
    coldest = apply_temperature(logits, 0).softmax(-1)
    best = logits == logits.max()
    assert torch.equal(coldest, best / best.sum())
    for temperature in (1e-3, 1e-30, 5e-324):
        assert torch.equal(apply_temperature(logits, temperature).softmax(-1), coldest)


@given(
    logits=st.lists(logits_of_any_kind, min_size=1, max_size=3),
    temperature=st.floats(0, 10),
    top_k=st.none() | st.integers(1, 9),
    top_p=st.none() | st.floats(0, 1, exclude_min=True),
)
def test_filters_leave_a_distribution_for_each_row(
    logits: list[Tensor], temperature: float, top_k: int | None, top_p: float | None
) -> None:
    """Whatever is combined: no row is empty or NaN, none depends on the others, the input stays."""
    width = min(map(len, logits))
    batch = torch.stack([row[:width] for row in logits])
    before = batch.clone()
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    result = filter_logits(batch, **options)
    assert torch.equal(batch, before)
    assert not result.isnan().any()
    assert (result.amax(-1) == 0).all()
    assert top_k is None or ((result > -torch.inf).sum(-1) <= top_k).all()
    for row, alone in zip(result, batch, strict=True):
        assert torch.equal(filter_logits(alone, **options), row)
    codes = draw(result, torch.Generator().manual_seed(0))
    assert (result.gather(1, codes[:, None]) > -torch.inf).all()


def test_top_p_counts_what_top_k_has_left() -> None:
    """Of 0.4, 0.3, 0.3 two stay, as 4/7 and 3/7: the first alone is half of it."""
    logits = torch.tensor([0.4, 0.3, 0.3]).log()
    assert (filter_logits(logits, top_p=0.5) > -torch.inf).tolist() == [True, True, False]
    assert (filter_logits(logits, top_k=2, top_p=0.5) > -torch.inf).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.5}, "temperature is -0.5, expected a finite number of at least 0"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"top_k": 0}, "top_k is 0, expected an integer of at least 1"),
        ({"top_p": 0.0}, "top_p is 0.0, expected a number above 0, at most 1"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"top_p": math.nan}, "top_p is nan"),
    ],
)
def test_filters_that_cannot_be_are_named(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        filter_logits(torch.zeros(2, 3), **options)
