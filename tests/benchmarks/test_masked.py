"""The masked prior: what a logit sees, what is missing in training, the passes that fill a grid, errors."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.errors import InputError
from benchmarks.models.masked import MaskedTransformer, draw_missing, fill, missing_after

CODES = 5
CHANCE = 14  # a test whose bound fails with a probability of e^(−14) fails once in a million


def build(*, codes: int = CODES, **options: object) -> MaskedTransformer:
    return MaskedTransformer(codes, 8, **{"layers": 2, "heads": 2, "largest": (4, 5), **options}).eval()


def sharpen(prior: MaskedTransformer, factor: float = 2.0) -> MaskedTransformer:
    """Larger logits, so that probabilities are far from equal."""
    for parameter in prior.parameters():
        parameter.data *= factor
    return prior


def flatten_logits(prior: MaskedTransformer) -> MaskedTransformer:
    """Make all codes equally probable everywhere."""
    torch.nn.init.zeros_(prior.to_logits.weight)
    torch.nn.init.zeros_(prior.to_logits.bias)
    return prior


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def record_passes(prior: MaskedTransformer) -> list[Tensor]:
    """What the prior reads in each forward pass from now on: codes [B, h, w]."""
    passes: list[Tensor] = []
    prior.embedding.register_forward_hook(lambda module, inputs, output: passes.append(inputs[0].clone()))
    return passes


# What a logit depends on


def test_every_logit_sees_every_code_and_the_label() -> None:
    prior = build(classes=2).double()
    captured: list[Tensor] = []
    prior.embedding.register_forward_hook(lambda module, inputs, output: captured.append(output))
    prior.label.table.register_forward_hook(lambda module, inputs, output: captured.append(output))
    logits = prior(torch.randint(CODES + 1, (1, 3, 4)), torch.tensor([1]))
    assert logits.shape == (1, 3, 4, CODES)
    for target in logits.flatten(0, 2):
        for slope in torch.autograd.grad(target, captured, torch.randn_like(target), retain_graph=True):
            assert (slope != 0).any(-1).all()


def test_positions_are_told_apart() -> None:
    """All codes are missing: only its row and column distinguish a position."""
    with torch.no_grad():
        logits = build()(torch.full((1, 4, 5), CODES))
    assert len(logits.flatten(0, 2).unique(dim=0)) == 20


# The loss


@settings(deadline=None)
@given(height=st.integers(1, 5), width=st.integers(1, 5), seed=st.integers(0, 2**20))
def test_at_least_one_code_of_each_image_is_missing(height: int, width: int, seed: int) -> None:
    missing = draw_missing((50, height, width), seeded(seed))
    assert missing.shape == (50, height, width)
    assert missing.any((1, 2)).all()


def test_the_share_of_missing_codes_is_a_cosine() -> None:
    """P(cos(π/2 · u) ≤ s) = 1 − 2/π · arccos s. The number is the share of 16, rounded up: exact at its steps.

    Dvoretzky, Kiefer and Wolfowitz: the largest distance of n draws is above √(x / 2n) with a probability of
    2e^(−2x) at most. Each position is missing as often as any other (Hoeffding).
    """
    images = 4000
    missing = draw_missing((images, 4, 4), seeded())
    allowed = math.sqrt(CHANCE / (2 * images))
    count = missing.sum((1, 2))
    for number in range(17):
        expected = 1 - 2 / math.pi * math.acos(number / 16)
        assert abs(float((count <= number).double().mean()) - expected) <= allowed
    for share in missing.double().mean(0).flatten().tolist():
        assert abs(share - float(missing.double().mean())) <= 2 * allowed


def test_the_loss_is_that_of_the_missing_codes_in_bits() -> None:
    """The prior reads the mask token where a code is missing, and what it says elsewhere does not count."""
    prior = sharpen(build(classes=2))
    passes = record_passes(prior)
    logits: list[Tensor] = []
    prior.to_logits.register_forward_hook(lambda module, inputs, output: logits.append(output))
    codes, label = torch.randint(CODES, (6, 3, 4, 1)), torch.randint(2, (6,))
    loss = prior.loss(codes, label, generator=seeded())
    (read,), (predicted,) = passes, logits
    missing = (read == CODES).flatten()
    assert 6 <= missing.sum() < missing.numel()
    assert torch.equal(read.flatten()[~missing], codes.flatten()[~missing])
    probability = predicted.double().softmax(-1).flatten(0, 1).gather(1, codes.view(-1, 1))[:, 0]
    expected = -probability[missing].log2().mean()
    torch.testing.assert_close(loss.double(), expected, rtol=16 * torch.finfo(torch.float32).eps, atol=0)
    (slope,) = torch.autograd.grad(loss, predicted)
    assert torch.equal((slope != 0).any(-1).flatten(), missing)


def test_the_loss_of_equal_codes_is_the_logarithm_of_their_number() -> None:
    prior = flatten_logits(build(codes=8))
    loss = prior.loss(torch.randint(8, (3, 2, 2, 1)), generator=seeded())
    assert loss.shape == ()
    assert abs(loss.item() - 3) <= 4 * 3 * torch.finfo(torch.float32).eps


# Passes


@given(codes=st.integers(1, 400), data=st.data())
def test_every_pass_sets_a_code_and_the_last_one_the_rest(codes: int, data: st.DataObject) -> None:
    passes = data.draw(st.integers(1, codes))
    missing = missing_after(passes, codes)
    assert len(missing) == passes
    assert missing[-1] == 0
    before = [codes, *missing]
    assert all(later < earlier for earlier, later in zip(before, missing, strict=False))
    for done, (earlier, left) in enumerate(zip(before, missing, strict=False), 1):
        planned = math.floor(codes * math.cos(math.pi / 2 * done / passes))
        assert left in (planned, earlier - 1, passes - done)  # the cosine, but where a pass would set none


@settings(deadline=None)
@given(
    height=st.integers(1, 4),
    width=st.integers(1, 5),
    guidance=st.sampled_from([0.0, 1.5]),
    choice_temperature=st.sampled_from([0.0, 4.5]),
    data=st.data(),
)
def test_a_grid_takes_the_passes_that_it_was_given(
    height: int, width: int, guidance: float, choice_temperature: float, data: st.DataObject
) -> None:
    """After each pass as many codes are missing as planned, and codes that are known never change."""
    passes = data.draw(st.integers(1, height * width))
    prior = sharpen(build(classes=2))
    read = record_passes(prior)
    label = torch.tensor([0, 1, 1])
    options = {"passes": passes, "guidance": guidance, "choice_temperature": choice_temperature}
    codes = fill(prior, 3, (height, width), label, **options, generator=seeded(passes))
    assert codes.shape == (3, height, width, 1)
    assert codes.dtype == torch.int64
    assert codes.min() >= 0
    assert codes.max() < CODES
    assert len(read) == passes
    planned = [height * width, *missing_after(passes, height * width)]
    states = [*(state[:3] for state in read), codes[..., 0]]
    for state, missing in zip(states, planned, strict=True):
        assert ((state == CODES).sum((1, 2)) == missing).all()
    for earlier, later in itertools.pairwise(states):
        assert torch.equal(later[earlier != CODES], earlier[earlier != CODES])


def test_without_noise_the_most_probable_codes_are_kept() -> None:
    """As a plain loop over images and positions does it, whose steps are easy to check."""
    prior = sharpen(build(classes=3))
    label, passes = torch.tensor([0, 1, 2]), 5
    codes = fill(prior, 3, (3, 4), label, passes=passes, temperature=0, choice_temperature=0, generator=seeded())
    expected = torch.full((3, 3, 4), CODES)
    for missing in missing_after(passes, 12):
        with torch.no_grad():
            chances = prior(expected, label).log_softmax(-1)
        for image in range(3):
            grid = expected[image].view(-1)
            best = chances[image].view(12, CODES).max(-1)
            ranked = sorted(range(12), key=lambda place: -float(best.values[place]))
            for place in [place for place in ranked if grid[place] == CODES][
                : int((grid == CODES).sum()) - missing
            ]:
                grid[place] = best.indices[place]
    assert torch.equal(codes[..., 0], expected)


def test_noise_makes_the_choice_of_positions_random() -> None:
    """Where all codes are equally probable the first pass keeps any position as often (Hoeffding), and without
    noise the first ones."""
    prior = flatten_logits(build())
    read = record_passes(prior)
    images = 4000
    fill(prior, images, (2, 4), passes=8, choice_temperature=4.5, generator=seeded())
    shares = (read[1] != CODES).double().mean(0).flatten()
    assert ((shares - 1 / 8).abs() <= math.sqrt(CHANCE / (2 * images))).all()
    read.clear()
    fill(prior, 1, (2, 4), passes=8, choice_temperature=0, generator=seeded())
    for taken, state in enumerate(read):
        assert (state.flatten() != CODES).tolist() == [True] * taken + [False] * (8 - taken)


# Labels and guidance


def test_guidance_rises_pass_by_pass() -> None:
    """A single pass has all of it: (1 + g) · conditional − g · unconditional. Of several, the first has none."""
    prior = sharpen(build(classes=3, label_dropout=0.5))
    label, missing = torch.tensor([0, 1, 2]), torch.full((3, 3, 4), CODES)
    with torch.no_grad():
        conditional = prior(missing, label)
        without = prior.predict(missing, prior.label.table(torch.full((3,), 3)))
    options = {"temperature": 0, "choice_temperature": 0, "generator": seeded()}
    guided = fill(prior, 3, (3, 4), label, passes=1, guidance=4.0, **options)[..., 0]
    assert torch.equal(guided, (5 * conditional - 4 * without).argmax(-1))
    assert not torch.equal(guided, conditional.argmax(-1))
    read = record_passes(prior)
    for guidance in (0.0, 4.0):
        fill(prior, 3, (3, 4), label, passes=6, guidance=guidance, **options)
    plain, guided = read[:6], [state[:3] for state in read[6:]]
    assert torch.equal(plain[1], guided[1])
    assert not torch.equal(plain[5], guided[5])


@pytest.mark.parametrize(
    ("options", "guidance", "error", "message"),
    [
        ({}, 1.0, InputError, "guidance is 1.0, expected 0: the prior was built without classes"),
        ({"classes": 2, "label_dropout": 0.0}, 1.0, InputError, "expected 0: .* built without label_dropout"),
        ({"classes": 2}, -1.0, ValueError, "guidance is -1.0, expected a finite number of at least 0"),
    ],
)
def test_guidance_that_cannot_be_is_named(
    options: dict[str, object], guidance: float, error: type[Exception], message: str
) -> None:
    label = torch.tensor([0]) if "classes" in options else None
    with pytest.raises(error, match=message):
        fill(build(**options), 1, (2, 2), label, passes=2, guidance=guidance, generator=seeded())


# Training and samples


def test_training_finds_a_few_grids_and_fills_them_in_again() -> None:
    """Two classes with two grids each, of one code everywhere: a single known code decides."""
    torch.manual_seed(0)
    prior = MaskedTransformer(4, 16, layers=2, heads=2, largest=(3, 3), classes=2, label_dropout=0.0)
    codes = torch.arange(4)[:, None, None, None].expand(-1, 3, 3, 1)
    label = torch.tensor([0, 0, 1, 1])
    optimizer, generator = torch.optim.Adam(prior.parameters(), 0.01), seeded()
    for _ in range(200):
        optimizer.zero_grad()
        prior.loss(codes.repeat(8, 1, 1, 1), label.repeat(8), generator=generator).backward()
        optimizer.step()
    prior.eval()
    drawn = fill(prior, 400, (3, 3), label.repeat(100), passes=9, generator=generator)
    known = (drawn.view(100, 4, 1, 9) == codes.reshape(4, 9)).all(-1) & (label[:, None] == label)
    assert known.any(-1).double().mean() >= 0.9
    assert known.any(1).any(0).all()  # all four come
    at_once = fill(prior, 400, (3, 3), label.repeat(100), passes=1, generator=generator)
    found = (at_once.view(400, 1, 9) == codes.reshape(4, 9)).all(-1).any(-1)
    assert found.double().mean() <= 0.1  # each code by itself: 2 · 2⁻⁹ of the draws are consistent


@pytest.mark.parametrize("options", [{"top_k": 1}, {"top_p": 1e-9}, {"temperature": 0}], ids=str)
def test_filters_leave_the_most_probable_code(options: dict[str, float]) -> None:
    prior = sharpen(build())
    codes = fill(prior, 2, (3, 4), passes=1, **options, generator=seeded(3))
    with torch.no_grad():
        logits = prior(torch.full((2, 3, 4), CODES))
    assert torch.equal(codes[..., 0], logits.argmax(-1))
    free = fill(prior, 2, (3, 4), passes=1, generator=seeded(3))
    assert not torch.equal(codes, free)


def test_a_sample_follows_its_generator_alone() -> None:
    prior = build()
    first, again, other = (fill(prior, 4, (3, 4), generator=seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not first.requires_grad


def test_every_weight_has_a_part_in_the_loss() -> None:
    torch.manual_seed(3)
    prior = build(classes=3, label_dropout=0.3).train()
    codes, label = torch.randint(CODES, (60, 4, 5, 1)), torch.arange(3).repeat(20)
    prior.loss(codes, label, generator=seeded()).backward()
    for name, parameter in prior.named_parameters():
        used = (parameter.grad != 0).flatten(1).any(1) if parameter.dim() > 1 else (parameter.grad != 0).any()
        assert used.all(), name


def test_dropout_is_for_training() -> None:
    torch.manual_seed(1)
    plain = build()
    torch.manual_seed(1)
    prior = build(dropout=0.5)
    codes = torch.randint(CODES + 1, (2, 3, 4))
    assert torch.equal(prior(codes), plain(codes))
    prior.train()
    assert not torch.equal(prior(codes), prior(codes))
    with pytest.raises(RuntimeError, match=r"in training mode.*eval\(\)"):
        fill(prior, 1, (2, 2), passes=2, generator=seeded())


# What is refused, and what is not


@pytest.mark.parametrize("guidance", [0.0, 1.0])
def test_no_image_is_no_error(guidance: float) -> None:
    prior, label = build(classes=2), torch.zeros(0, dtype=torch.int64)
    assert prior(torch.zeros(0, 2, 3, dtype=torch.int64), label).shape == (0, 2, 3, CODES)
    assert fill(prior, 0, (2, 3), label, passes=2, guidance=guidance, generator=seeded()).shape == (0, 2, 3, 1)


GOOD = torch.zeros(2, 3, 4, 1, dtype=torch.int64)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (
            GOOD.expand(-1, -1, -1, 2),
            "codes have 2 codebooks, expected one: a masked transformer predicts one code",
        ),
        (GOOD[..., 0], r"codes have shape \(2, 3, 4\), expected \[B, h, w, 1\]"),
        (GOOD[:0], "codes are an empty batch, expected at least one image"),
        (GOOD + CODES, "codes hold 5: expected 0 to 4"),
        (GOOD - 1, "codes hold -1, which marks a vector without a code"),
        (GOOD.float(), "codes have dtype torch.float32, expected torch.int64"),
        (GOOD.repeat(1, 1, 2, 1), "the grid is 3 × 8, expected at most 4 × 5"),
    ],
)
def test_codes_that_are_none_are_named(codes: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build().loss(codes, generator=seeded())


def test_a_code_beyond_the_mask_token_is_named() -> None:
    prior = build()
    prior(GOOD[..., 0] + CODES)
    with pytest.raises(InputError, match="codes hold 6: expected 0 to 5"):
        prior(GOOD[..., 0] + CODES + 1)
    with pytest.raises(InputError, match="there are labels, expected none"):
        prior(GOOD[..., 0], torch.tensor([0, 0]))


@pytest.mark.parametrize(
    ("shape", "options", "error", "message"),
    [
        ((2, 3), {"passes": 7}, InputError, "passes is 7, expected 1 to 6: every pass sets at least one of the 6"),
        ((2, 3), {"passes": 0}, InputError, "passes is 0, expected 1 to 6"),
        ((0, 3), {}, InputError, r"the grid has shape \(0, 3\), expected \(h, w\) of at least 1 each"),
        ((3,), {}, InputError, r"the grid has shape \(3,\), expected \(h, w\)"),
        ((4, 6), {}, InputError, "the grid is 4 × 6, expected at most 4 × 5"),
        ((3, 4), {"choice_temperature": -1.0}, ValueError, "choice_temperature is -1.0, expected a finite number"),
        ((3, 4), {"temperature": -1.0}, ValueError, "temperature is -1.0"),
        ((3, 4), {"top_k": 0}, ValueError, "top_k is 0"),
    ],
)
def test_a_grid_that_cannot_be_filled_is_named(
    shape: tuple[int, ...], options: dict[str, float], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        fill(build(), 1, shape, **options, generator=seeded())


@pytest.mark.parametrize(
    ("build_wrong", "message"),
    [
        (lambda: build(codes=0), "codebook_size is 0, expected an integer of at least 1"),
        (lambda: MaskedTransformer(5, 10, heads=4), "width is 10, expected a multiple of heads=4"),
        (lambda: build(layers=0), "layers is 0"),
        (lambda: build(largest=(0, 2)), "each of largest is 0"),
        (lambda: build(classes=0), "classes is 0"),
        (lambda: build(label_dropout=-0.1), "label_dropout is -0.1, expected a probability"),
    ],
)
def test_sizes_that_cannot_be_are_named(build_wrong: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_wrong()
