"""The next-scale prior: what each logit may depend on, one scale at a time, bits, guidance, samples, errors."""

import itertools
import math
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.errors import InputError
from benchmarks.models.next_scale import NextScaleTransformer, sample_scales
from quantizers import create
from quantizers.composite.pyramid_quantizer import PyramidQuantizer

Scales = tuple[tuple[int, int], ...]

SCALES = ((1, 1), (2, 2), (3, 4))
LENGTH = 17  # tokens of these scales
CODES, DIM = 5, 3


def build(scales: Scales = SCALES, *, codes: int = CODES, **options: object) -> NextScaleTransformer:
    return NextScaleTransformer(codes, DIM, scales, 8, **{"layers": 2, "heads": 2, **options}).eval()


def sharpen(prior: NextScaleTransformer, factor: float = 1.5) -> NextScaleTransformer:
    """Larger logits, so that probabilities are far from equal."""
    for parameter in prior.parameters():
        parameter.data *= factor
    return prior


def build_quantizer(scales: Scales = SCALES, codes: int = CODES) -> PyramidQuantizer:
    """A quantizer whose scales have these sizes on a map of the size of the last one."""
    full = scales[-1]
    relative = [tuple(Fraction(*sides) for sides in zip(scale, full, strict=True)) for scale in scales]
    quantizer = create("var", DIM, quantizer="vq", codebook_size=codes, scales=relative, axes=2)
    return quantizer.eval().requires_grad_(False)


def random_tokens(batch: int, scales: Scales = SCALES, codes: int = CODES) -> Tensor:
    return torch.randint(codes, (batch, sum(height * width for height, width in scales)))


def follow(prior: NextScaleTransformer, inputs: Tensor, label: Tensor | None, guidance: float = 0.0) -> Tensor:
    """The logits of all steps, [B, L, K]."""
    steps = prior.start(len(inputs), label, guidance=guidance)
    logits = [steps.logits()]
    for of_scale in inputs.split(prior.counts[1:], 1):
        assert steps.left == len(prior.scales) - len(logits)
        logits.append(steps.logits(of_scale))
    assert steps.left == 0
    return torch.cat(logits, 1)


def roundings(prior: NextScaleTransformer, inputs: Tensor, label: Tensor | None) -> float:
    """What the order of sums may change in float64, where roundings are 2²⁹ times smaller than in float32.

    What they come to in this network is measured: by how much its float32 forward is off. 2¹⁰ times as much is
    allowed for chance. A token that is forgotten, or in another place, is not as small as a rounding. The prior
    is in float64 afterwards.
    """
    with torch.no_grad():
        single = prior.float()(inputs.float(), label)
        return float((single - prior.double()(inputs.double(), label)).abs().max()) * 2.0 ** (10 - 29)


# What a logit depends on


def test_a_logit_sees_its_own_scale_and_all_coarser_ones() -> None:
    """By derivatives of the logits with respect to the inputs: exactly zero for finer scales alone."""
    prior = build().double()
    inputs = torch.randn(1, LENGTH - 1, DIM, dtype=torch.float64, requires_grad=True)
    logits = prior(inputs)[0]
    scale_of = [k for k, (height, width) in enumerate(SCALES) for _ in range(height * width)]
    for token, target in enumerate(logits):
        slope = torch.autograd.grad(target, inputs, torch.randn_like(target), retain_graph=True)[0]
        found = (slope[0] != 0).any(-1).tolist()
        assert found == [scale_of[other] <= scale_of[token] for other in range(1, LENGTH)], token


@settings(deadline=None)
@given(scale=st.integers(0, len(SCALES) - 1), seed=st.integers(0, 2**20))
def test_no_logit_depends_on_tokens_of_its_own_or_finer_scales(scale: int, seed: int) -> None:
    """And those of a prefix stay as they are, to the bit, whatever follows. The next scale's do change."""
    torch.manual_seed(seed)
    prior, quantizer = build(), build_quantizer()
    seen = sum(prior.counts[: scale + 1])
    tokens = random_tokens(2)
    changed = tokens.clone()
    changed[:, seen - prior.counts[scale] :] = (tokens[:, seen - prior.counts[scale] :] + 1) % CODES
    with torch.no_grad():
        before, after = (prior(quantizer.scale_inputs(each, SCALES)) for each in (tokens, changed))
    assert torch.equal(before[:, :seen], after[:, :seen])
    assert (before[:, seen:] != after[:, seen:]).any(-1).all()


def test_every_logit_depends_on_the_label() -> None:
    prior = build(classes=3).double()
    inputs = torch.randn(1, LENGTH - 1, DIM, dtype=torch.float64)
    zero, one = prior(inputs, torch.tensor([0])), prior(inputs, torch.tensor([1]))
    assert (zero != one).any(-1).all()


# One scale at a time


@settings(deadline=None)
@given(
    sides=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=4),
    batch=st.integers(1, 3),
    conditional=st.booleans(),
    seed=st.integers(0, 2**20),
)
def test_steps_give_the_logits_of_a_forward(
    sides: list[tuple[int, int]], batch: int, conditional: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    heights, widths = (list(itertools.accumulate(side)) for side in zip(*sides, strict=True))
    scales = tuple((1 + height, 1 + width) for height, width in zip(heights, widths, strict=True))
    prior = sharpen(build(scales, classes=3 if conditional else None))
    inputs = torch.randn(batch, sum(prior.counts[1:]), DIM)
    label = torch.randint(3, (batch,)) if conditional else None
    allowed = roundings(prior, inputs, label)
    with torch.no_grad():
        forward = prior(inputs.double(), label)
    assert forward.shape == (batch, sum(prior.counts), CODES)
    assert (follow(prior, inputs.double(), label) - forward).abs().max() <= allowed


def test_an_image_takes_one_pass_for_each_scale() -> None:
    prior = build(classes=2)
    passes: list[int] = []
    prior.norm.register_forward_hook(lambda module, inputs, output: passes.append(len(output)))
    for guidance, rows in ((0.0, 4), (1.0, 8)):  # a guided pass has twice as many rows
        passes.clear()
        label, generator = torch.tensor([0, 1, 0, 1]), torch.Generator()
        quantizer = build_quantizer()
        sample_scales(prior, quantizer, 4, label, guidance=guidance, generator=generator)
        assert passes == [rows] * len(SCALES)


def test_steps_keep_nothing_for_a_gradient() -> None:
    prior = build(classes=2)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda packed: packed):
        logits = follow(prior, torch.randn(2, LENGTH - 1, DIM), torch.tensor([0, 1]))
    assert not kept
    assert not logits.requires_grad


# Labels and guidance


def unconditional(prior: NextScaleTransformer, inputs: Tensor) -> Tensor:
    """The logits for the null class."""
    prior.train()
    prior.label.dropout = 1.0  # every label is dropped
    with torch.no_grad():
        logits = prior(inputs, torch.zeros(len(inputs), dtype=torch.int64))
    prior.label.dropout = 0.1
    prior.eval()
    return logits


@settings(deadline=None)
@given(guidance=st.floats(0, 8), seed=st.integers(0, 2**20))
def test_guidance_rises_scale_by_scale(guidance: float, seed: int) -> None:
    """As (1 + g_k) · conditional − g_k · unconditional with g_k = g · k / (S − 1). Without guidance, the first
    alone."""
    torch.manual_seed(seed)
    prior = sharpen(build(classes=3))
    inputs, label = torch.randn(2, LENGTH - 1, DIM), torch.randint(3, (2,))
    allowed = roundings(prior, inputs, label)
    inputs = inputs.double()
    with torch.no_grad():
        conditional = prior(inputs, label)
    without = unconditional(prior, inputs)
    strength = [guidance * k / 2 for k, count in enumerate(prior.counts) for _ in range(count)]
    g = torch.tensor(strength, dtype=torch.float64)[:, None]
    expected = (1 + g) * conditional - g * without
    # Both kinds of logits are off by what is allowed, each times its factor; the combination itself has four
    # roundings of values below its factors times the largest logit.
    own = 4 * torch.finfo(torch.float64).eps * float(max(conditional.abs().max(), without.abs().max()))
    difference = (follow(prior, inputs, label, guidance) - expected).abs().max()
    assert difference <= (1 + 2 * guidance) * (allowed + own)
    assert (conditional != without).any(-1).all()


def test_a_single_scale_has_all_of_the_guidance() -> None:
    prior = build(((2, 2),), classes=2).double()
    inputs, label = torch.zeros(2, 0, DIM, dtype=torch.float64), torch.tensor([0, 1])
    with torch.no_grad():
        expected = 3 * prior(inputs, label) - 2 * unconditional(prior, inputs)
    torch.testing.assert_close(follow(prior, inputs, label, 2.0), expected, rtol=1e-12, atol=1e-12)


def test_labels_are_dropped_at_their_rate_in_training_alone() -> None:
    """Hoeffding: with n labels a rate is off by more than √(x / 2n) with a probability of 2e^(−x)."""
    prior = build(((1, 1),), classes=2, label_dropout=0.3)
    images, x = 4000, 14
    inputs, label = torch.zeros(images, 0, DIM), torch.zeros(images, dtype=torch.int64)
    whole = prior(inputs, label)
    assert torch.equal(whole, whole[:1].expand_as(whole))
    prior.train()
    changed = (prior(inputs, label) != whole[:1]).flatten(1).any(1)
    assert abs(float(changed.double().mean()) - 0.3) <= math.sqrt(x / (2 * images))


@pytest.mark.parametrize(
    ("options", "guidance", "error", "message"),
    [
        ({}, 1.0, InputError, "guidance is 1.0, expected 0: the prior was built without classes"),
        ({"classes": 2, "label_dropout": 0.0}, 1.0, InputError, "expected 0: .* built without label_dropout"),
        ({"classes": 2}, -1.0, ValueError, "guidance is -1.0, expected a finite number of at least 0"),
        ({"classes": 2}, math.inf, ValueError, "guidance is inf, expected a finite number of at least 0"),
    ],
)
def test_guidance_that_cannot_be_is_named(
    options: dict[str, object], guidance: float, error: type[Exception], message: str
) -> None:
    label = torch.tensor([0]) if "classes" in options else None
    with pytest.raises(error, match=message):
        build(**options).start(1, label, guidance=guidance)


# Bits


@pytest.mark.parametrize("scales", [((1, 1), (1, 2), (2, 2)), ((1, 2), (2, 2)), ((2, 3),)], ids=str)
def test_probabilities_of_all_token_sequences_sum_to_one(scales: Scales) -> None:
    quantizer = build_quantizer(scales, 2)
    prior = sharpen(build(scales, codes=2, classes=2)).double()
    length = sum(prior.counts)
    tokens = torch.tensor(list(itertools.product(range(2), repeat=length)))
    inputs = quantizer.scale_inputs(tokens, scales)
    label = torch.ones(len(tokens), dtype=torch.int64)
    allowed = roundings(prior, inputs, label)
    with torch.no_grad():
        bits = prior.bits(tokens, inputs.double(), label)
    assert bits.shape == (len(tokens),)
    # A logit that is off by a changes a log-probability by 2a at most, in each of the tokens.
    assert abs(float((2**-bits).sum()) - 1) <= math.expm1(2 * length * allowed) + 2**-40


def train(prior: NextScaleTransformer, tokens: Tensor, inputs: Tensor, label: Tensor | None, steps: int) -> Tensor:
    optimizer = torch.optim.Adam(prior.train().parameters(), 0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        bits = prior.bits(tokens, inputs, label).mean()
        bits.backward()
        optimizer.step()
    prior.eval()
    return bits.detach()


def test_training_finds_a_few_sequences_and_samples_them_back() -> None:
    """Three classes with two sequences each, which differ from the first scale on: one bit an image remains."""
    torch.manual_seed(0)
    quantizer = build_quantizer()
    prior = NextScaleTransformer(CODES, DIM, SCALES, 16, layers=2, heads=2, classes=3, label_dropout=0.0)
    tokens, label = random_tokens(6), torch.arange(3).repeat(2)
    tokens[:3, 0], tokens[3:, 0] = 1, 2
    bits = train(prior, tokens, quantizer.scale_inputs(tokens, SCALES), label, 200)
    assert 1 - 1e-3 <= bits < 1.05  # Gibbs' inequality; float32 has roundings
    generator = torch.Generator().manual_seed(1)
    drawn = sample_scales(prior, quantizer, 300, label.repeat(50), generator=generator)
    known = (drawn.view(50, 6, 1, LENGTH) == tokens).all(-1) & (label[:, None] == label)
    # Within 0.05 bits of the entropy, at most √(0.05 ln 2 / 2) = 0.14 of the mass is elsewhere (Pinsker), and 300
    # draws are off by at most √(14 / 600) = 0.16 (Hoeffding, one in a million).
    assert known.any(-1).double().mean() >= 0.7
    assert known.any(1).any(0).all()  # both sequences of each class come


def test_every_weight_has_a_part_in_the_bits() -> None:
    prior, quantizer = build(classes=CODES), build_quantizer()
    prior.train()
    prior.label.dropout = 0.5
    torch.manual_seed(3)
    tokens = random_tokens(40)
    prior.bits(tokens, quantizer.scale_inputs(tokens, SCALES), torch.arange(CODES).repeat(8)).sum().backward()
    for name, parameter in prior.named_parameters():
        used = (parameter.grad != 0).flatten(1).any(1) if parameter.dim() > 1 else (parameter.grad != 0).any()
        assert used.all(), name


def test_dropout_is_for_training() -> None:
    torch.manual_seed(1)
    plain = build()
    torch.manual_seed(1)
    prior = build(dropout=0.5)
    inputs = torch.randn(2, LENGTH - 1, DIM)
    assert torch.equal(prior(inputs), plain(inputs))
    prior.train()
    assert not torch.equal(prior(inputs), prior(inputs))
    with pytest.raises(RuntimeError, match=r"in training mode.*eval\(\)"):
        prior.start(1)


# Samples


def test_without_a_choice_a_sample_is_the_most_probable_code_each_time() -> None:
    prior, quantizer = sharpen(build(classes=3)), build_quantizer()
    label = torch.tensor([0, 1, 2])
    tokens = sample_scales(prior, quantizer, 3, label, temperature=0, generator=torch.Generator())
    with torch.no_grad():
        logits = prior(quantizer.scale_inputs(tokens, SCALES), label)
    assert torch.equal(tokens, logits.argmax(-1))
    for options in ({"top_k": 1}, {"top_p": 1e-9}):
        generator = torch.Generator().manual_seed(3)
        assert torch.equal(sample_scales(prior, quantizer, 3, label, **options, generator=generator), tokens)


def test_samples_are_as_frequent_as_their_probabilities() -> None:
    """Pearson's χ² over all sequences of three tokens.

    P(χ²_d ≥ d + 2√(d x) + 2x) ≤ e^(−x) (Laurent & Massart 2000, lemma 1); x = 14 is one in a million.
    """
    draws, x, scales = 8_000, 14, ((1, 1), (1, 2))
    torch.manual_seed(2)
    prior, quantizer = sharpen(build(scales, codes=3), 2.0), build_quantizer(scales, 3)
    drawn = sample_scales(prior, quantizer, draws, generator=torch.Generator().manual_seed(5))
    every = torch.tensor(list(itertools.product(range(3), repeat=3)))
    with torch.no_grad():
        expected = draws * 2 ** -prior.bits(every, quantizer.scale_inputs(every, scales)).double()
    counts = (drawn[:, None] == every).all(-1).sum(0)
    assert counts.sum() == draws
    common = expected >= 5
    assert expected[~common].sum() <= 0.01 * draws  # what is too rare for χ² hardly matters
    statistic = float(((counts - expected) ** 2 / expected)[common].sum())
    freedom = int(common.sum())
    assert statistic <= freedom + 2 * math.sqrt(freedom * x) + 2 * x
    assert expected.max() >= 2 * draws / 27  # far from equal: a draw that ignores the model does not pass


def test_a_sample_follows_its_generator_alone() -> None:
    prior, quantizer = build(), build_quantizer()
    first, again, other = (
        sample_scales(prior, quantizer, 4, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert first.shape == (4, LENGTH)
    assert first.dtype == torch.int64
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


# What is refused, and what is not


def test_an_empty_batch_is_a_batch() -> None:
    prior, quantizer = build(classes=2), build_quantizer()
    inputs, label = torch.zeros(0, LENGTH - 1, DIM), torch.zeros(0, dtype=torch.int64)
    assert prior(inputs, label).shape == (0, LENGTH, CODES)
    assert prior.bits(torch.zeros(0, LENGTH, dtype=torch.int64), inputs, label).shape == (0,)
    for guidance in (0.0, 1.0):
        tokens = sample_scales(prior, quantizer, 0, label, guidance=guidance, generator=torch.Generator())
        assert tokens.shape == (0, LENGTH)


GOOD = torch.zeros(2, LENGTH, dtype=torch.int64)
INPUTS = torch.zeros(2, LENGTH - 1, DIM)
LABEL = torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("tokens", "inputs", "label", "message"),
    [
        (GOOD + CODES, INPUTS, LABEL, "tokens hold 5: expected 0 to 4"),
        (GOOD - 1, INPUTS, LABEL, "tokens hold -1, which marks a vector without a code .*: expected 0 to 4"),
        (GOOD[:, 1:], INPUTS, LABEL, r"tokens have shape \(2, 16\), expected \[B, 17\]"),
        (GOOD.float(), INPUTS, LABEL, "tokens have dtype torch.float32, expected torch.int64"),
        (GOOD, INPUTS[:, 1:], LABEL, r"inputs have shape \(2, 15, 3\), expected \[B, 16, 3\]: what quantizer"),
        (GOOD, INPUTS[..., 1:], LABEL, r"inputs have shape \(2, 16, 2\), expected \[B, 16, 3\]"),
        (GOOD[:1], INPUTS, LABEL, "there are 1 images of tokens and 2 of inputs"),
        (GOOD, INPUTS, None, "there are no labels, expected one of 2 classes for each image"),
        (GOOD, INPUTS, LABEL[:1], r"labels have shape \(1,\), expected \(2,\)"),
        (GOOD, INPUTS, LABEL + 1, "labels hold 2: expected 0 to 1"),
    ],
)
def test_what_does_not_fit_is_named(tokens: Tensor, inputs: Tensor, label: Tensor | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(classes=2).bits(tokens, inputs, label)


def test_labels_without_classes_are_named() -> None:
    with pytest.raises(InputError, match="there are labels, expected none: the prior was built without classes"):
        build().start(2, LABEL)


def test_steps_that_cannot_be_are_named() -> None:
    prior = build()
    with pytest.raises(ValueError, match="batch is -1, expected an integer of at least 0"):
        prior.start(-1)
    steps = prior.start(2)
    with pytest.raises(InputError, match=r"inputs of scale 1 are of shape \(2, 1, 3\), expected None"):
        steps.logits(INPUTS[:, :1])
    steps.logits()  # what was refused has left no trace
    for wrong, named in ((None, "None"), (INPUTS[:, :3], r"of shape \(2, 3, 3\)")):
        with pytest.raises(InputError, match=rf"inputs of scale 2 are {named}, expected of shape \(2, 4, 3\)"):
            steps.logits(wrong)
    steps.logits(INPUTS[:, :4])
    steps.logits(INPUTS[:, 4:])
    with pytest.raises(RuntimeError, match="all 3 scales are predicted: there is no next one"):
        steps.logits(INPUTS[:, 4:])


def test_a_quantizer_with_other_codebooks_is_named() -> None:
    quantizer = build_quantizer(SCALES, CODES + 1)
    message = r"the quantizer's codebook sizes are \[6, 6, 6\], expected 5 at all scales"
    with pytest.raises(InputError, match=message):
        sample_scales(build(), quantizer, 1, generator=torch.Generator())


@pytest.mark.parametrize(
    ("build_wrong", "message"),
    [
        (lambda: build(codes=0), "codebook_size is 0, expected an integer of at least 1"),
        (lambda: NextScaleTransformer(5, 0, SCALES), "dim is 0"),
        (lambda: NextScaleTransformer(5, 3, SCALES, 10, heads=4), "width is 10, expected a multiple of heads=4"),
        (lambda: build(layers=0), "layers is 0"),
        (lambda: build(classes=0), "classes is 0"),
        (lambda: build(label_dropout=1.5), "label_dropout is 1.5, expected a probability"),
        (lambda: build(()), r"scales are \[\], expected sizes \(h, w\) from the coarsest to the finest"),
        (lambda: build(((1, 1, 1),)), r"scales are \[\(1, 1, 1\)\], expected sizes"),
        (lambda: build(((2, 2), (3, 1))), r"scales are \[\(2, 2\), \(3, 1\)\], expected sizes"),
        (lambda: build(((0, 1), (1, 1))), "each side of scales is 0, expected an integer of at least 1"),
    ],
)
def test_sizes_that_cannot_be_are_named(build_wrong: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_wrong()
