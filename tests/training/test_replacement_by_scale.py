"""Replacement where a table has few vectors, and where it has several places of different sizes."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from quantizers import CodeSplitting, DeadCodeReplacement, MultiScaleQuantizer, VectorQuantizer
from quantizers.core.layout import to_rows
from quantizers.training.drawn_vectors import _in_turn
from quantizers.training.replacement import LEAST_CHOICES, Replacement
from tests.effort import examples
from tests.training.test_replacement import optimizer_of, rows_among

THRESHOLD = 0.1


@examples(8)
@given(
    vectors=st.integers(2, 8),
    decay=st.sampled_from([0.9, 0.95, 0.99]),
    seed=st.integers(0, 999),
    kind=st.booleans(),
)
def test_chance_makes_no_live_code_look_dead(vectors: int, decay: float, seed: int, kind: bool) -> None:
    """With fewer vectors than codes, while a dead code moves in the step that the decay says, and not before.

    Live codes are chosen with equal probability. The running use of such a code, which remembers c ≥ 10 of its
    choices, is below θ = 0.1 with a probability of at most exp(c (yθ − Ein(y))) for any y, by Chernoff's bound for
    a Poisson process, with Ein(y) = ∫₀ʸ (1−e⁻ᵗ)/t dt: with y = 10, below 10⁻⁸ for each code and step.
    """
    torch.manual_seed(seed)
    live = 32
    quantizer = VectorQuantizer(1, live + 1)
    codes = 10 * torch.arange(live + 1.0)[:, None]
    codes[live] = -1000
    quantizer.set_codebook(codes)
    replacement: Replacement
    if kind:
        replacement = DeadCodeReplacement(quantizer, optimizer_of(quantizer), threshold=THRESHOLD, decay=decay)
    else:
        replacement = CodeSplitting(quantizer, optimizer_of(quantizer), threshold=THRESHOLD, decay=decay)
    expected = vectors / (live + 1)
    remembered = max(expected / (1 - decay), min(LEAST_CHOICES, 1 / (1 - decay)))
    steps = math.log(THRESHOLD) / (math.log(decay) * expected / (1 - decay) / remembered)
    for step in range(1, math.floor(steps) + 2):
        before = quantizer.codebook.detach().clone()
        with torch.no_grad():
            quantizer(codes[torch.randint(live, (vectors,))] + 0.1 * torch.randn(vectors, 1))
        moved = replacement.step()
        if step < steps - 0.01:  # rounding may decide
            assert moved == 0, f"a live code moved in step {step} of {steps}"
    if kind:
        assert moved == 1
        assert (quantizer.codebook != before).any(-1).nonzero().tolist() == [[live]]


def pyramid(codes: Tensor) -> MultiScaleQuantizer:
    shared = VectorQuantizer(codes.shape[1], len(codes))
    quantizer = MultiScaleQuantizer(
        codes.shape[1], [shared] * 2, scales=(0.25, 1.0), axes=2, interpolation="nearest"
    )
    shared.set_codebook(codes)
    return quantizer


def test_a_code_that_serves_a_small_scale_alone_is_alive() -> None:
    """One vector of seventeen chooses it, but every vector of its scale."""
    codes = torch.tensor([[100.0], [-1.0], [1.0], [1e6]])
    quantizer = pyramid(codes)
    replacement = DeadCodeReplacement(quantizer, optimizer_of(quantizer), threshold=0.9, decay=0.0)
    signs = 1 - 2 * (torch.arange(16) % 2)
    quantizer(100 + signs.float().view(1, 4, 4, 1).expand(3, 4, 4, 1))
    assert replacement.step() == 1
    assert torch.equal(quantizer.quantizers[0].codebook[:3], codes[:3])
    use = replacement.state_dict()["quantizers.0"]
    torch.testing.assert_close(use, torch.tensor([2.0, 1.0, 1.0, 1.0]))


@examples(10)
@given(seed=st.integers(0, 999))
def test_replaced_codes_come_from_the_scales_in_equal_parts(seed: int) -> None:
    """Four coarse cells and sixty-four fine ones: of six replaced codes, three are coarse cells."""
    torch.manual_seed(seed)
    quantizer = pyramid(torch.cat([torch.zeros(1, 2), -1e6 * torch.ones(6, 2)]))
    replacement = DeadCodeReplacement(quantizer, optimizer_of(quantizer), threshold=0.5, decay=0.0)
    maps = torch.randn(4, 4, 4, 2)
    indices = quantizer(maps).indices
    (_, coarse, _), (_, fine, _) = quantizer.learned_rows(to_rows(maps, None, 2, -1), indices)
    assert replacement.step() == 6
    codes = quantizer.quantizers[0].codebook.detach()[1:]
    from_coarse = sum(rows_among(code[None], coarse.detach()) for code in codes)
    from_fine = sum(rows_among(code[None], fine.detach()) for code in codes)
    assert (from_coarse, from_fine) == (3, 3)


@examples(50)
@given(places=st.lists(st.integers(0, 4), max_size=30), seed=st.integers(0, 999), generator=st.booleans())
def test_places_take_turns_until_they_have_no_more(places: list[int], seed: int, generator: bool) -> None:
    torch.manual_seed(seed)
    draws = torch.Generator("cpu").manual_seed(seed) if generator else None
    numbers = torch.tensor(places, dtype=torch.int64)
    order = _in_turn(numbers, draws)
    assert order.sort().values.tolist() == list(range(len(places)))
    for length in range(len(places)):
        taken = torch.bincount(numbers[order[:length]], minlength=5)
        left = torch.bincount(numbers[order[length:]], minlength=5)
        if length:
            # A place with vectors left has had at most one fewer than any other.
            assert (taken[left > 0] >= taken.max() - 1).all()


def test_a_single_vector_comes_from_each_place_as_often() -> None:
    """Not from each vector as often: half of 400 draws, within five standard deviations of a binomial."""
    torch.manual_seed(0)
    places = torch.tensor([0] + [1] * 50)
    first = sum(int(places[_in_turn(places)[0]]) for _ in range(400))
    assert abs(first - 200) <= 50


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.99])
def test_as_many_vectors_as_codes_leave_the_decay_as_it_is(decay: float) -> None:
    """And more; fewer never remember more choices of a code than these."""
    quantizer = VectorQuantizer(1, 64)
    replacement = DeadCodeReplacement(quantizer, optimizer_of(quantizer), decay=decay)
    assert replacement._decay_with(64, 64) == replacement._decay_with(10**6, 64) == decay
    for vectors in (1, 7, 63):
        slower = replacement._decay_with(vectors, 64)
        assert decay <= slower < 1
        remembered = -vectors / 64 / math.log(slower) if slower else 0.0
        assert remembered <= (-1 / math.log(decay) if decay else 0.0) * (1 + 1e-9)
