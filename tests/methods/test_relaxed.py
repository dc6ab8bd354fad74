"""Quantizers whose value in training lies between vectors and codes: a part of the samples bypasses, or all are
interpolated. All else is that of the quantizer inside."""

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import quantizers
from quantizers import (
    BypassQuantizer,
    EMAVectorQuantizer,
    InterpolatedQuantizer,
    Quantizer,
    ResidualQuantizer,
    VectorQuantizer,
)
from quantizers.core.projection import Projection
from quantizers.training.schedules import CosineHardness, LinearHardness
from tests.cases import CASES, DIM, SIZE, Case, assert_same_state, batch, normal, seeded, state_of
from tests.effort import for_each_case

pytestmark = pytest.mark.methods

INSIDE = [
    *(case for case in CASES if "bypass" not in str(case) and "interpolated" not in str(case)),
    Case("multiscale", {"quantizer": "ema_vq", "axes": 1, "scales": (0.5, 1.0)}),
]
every_inside = pytest.mark.parametrize("case", INSIDE, ids=str)
relaxations = pytest.mark.parametrize(
    "relax",
    [
        lambda inside, **options: BypassQuantizer(inside, probability=0.5, **options),
        lambda inside, **options: InterpolatedQuantizer(inside, hardness=0.25, **options),
    ],
    ids=["bypass", "interpolated"],
)
seeds = st.integers(0, 2**31)
shapes = st.lists(st.integers(1, 5), min_size=2, max_size=3)


def assert_same(a: Any, b: Any) -> None:
    assert all(torch.equal(x.nan_to_num(), y.nan_to_num()) for x, y in zip(a, b, strict=True))


# What stays as it is


@every_inside
@relaxations
def test_all_but_the_value_in_training_is_that_of_the_quantizer_inside(case: Case, relax: Any) -> None:
    """Indices, loss, its gradients, and state in training; everything in evaluation, masks and NaN included."""
    inside = case.build()
    relaxed = relax(copy.deepcopy(inside))
    x = batch(3, 8)
    x[1, 2] = math.nan
    mask = torch.rand(3, 8, generator=torch.Generator().manual_seed(1)) < 0.8
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    for _ in range(2):
        expected, actual = (seeded(q, x, mask) for q, x in zip((inside, relaxed), inputs, strict=True))
        assert_same(expected[1:], actual[1:])
        assert_same_state(state_of(inside), state_of(relaxed.quantizer))
    if expected.loss.requires_grad:
        expected.loss.backward()
        actual.loss.backward()
        assert torch.equal(inputs[0].grad, inputs[1].grad)
    inside.eval()
    relaxed.eval()
    assert_same(inside(x, mask), relaxed(x, mask))
    assert torch.equal(inside.encode(x, mask), relaxed.encode(x, mask))
    if case.has_codes:
        assert torch.equal(inside.decode(expected.indices), relaxed.decode(expected.indices))
        assert inside.codebook_sizes == relaxed.codebook_sizes
        assert all(
            torch.equal(a, b)
            for a, b in zip(
                inside.indices_by_codebook(expected.indices, x),
                relaxed.indices_by_codebook(expected.indices, x),
                strict=True,
            )
        )


@every_inside
def test_at_their_ends_they_are_the_quantizer_inside_or_none(case: Case) -> None:
    """Bit for bit, with gradients: p = 0 and a = 1 give its value, p = 1 and a = 0 give z, or z projected."""
    inside = case.build()
    x = batch(3, 8)
    plain = seeded(copy.deepcopy(inside), x).quantized
    for none in (
        BypassQuantizer(copy.deepcopy(inside), probability=0),
        InterpolatedQuantizer(copy.deepcopy(inside), hardness=1),
    ):
        assert torch.equal(seeded(none, x).quantized, plain)
    z = inside._unquantized(inside.project_in(x.reshape(-1, DIM)))
    z = inside.project_out(z).reshape(x.shape)
    for whole in (
        BypassQuantizer(copy.deepcopy(inside), probability=1),
        InterpolatedQuantizer(copy.deepcopy(inside), hardness=0),
    ):
        assert torch.equal(seeded(whole, x).quantized, z)


@pytest.mark.parametrize("make", [BypassQuantizer, InterpolatedQuantizer])
def test_maps_keep_the_size_of_their_decoder(make: Any) -> None:
    pyramid = quantizers.create("multiscale", DIM, SIZE, axes=2, scales=(0.5, 1.0))
    relaxed = make(pyramid, channel_dim=1).eval()
    x = batch(2, 4, 6).movedim(-1, 1)
    quantized, indices, _ = relaxed(x)
    assert torch.equal(relaxed.decode(indices, size=(4, 6)), quantized)
    assert not relaxed.per_vector
    with pytest.raises(ValueError, match="which quantizes maps; expected a quantizer of single vectors"):
        ResidualQuantizer(DIM, [make(pyramid)])


@relaxations
def test_a_residual_quantizer_inside_may_use_its_first_codebooks(relax: Any) -> None:
    inside = quantizers.create("residual", DIM, SIZE, quantizer="ema_vq", num_quantizers=3)
    relaxed = relax(copy.deepcopy(inside), channel_dim=1)
    x = batch(5, 6)
    moved = x.movedim(-1, 1)
    for training in (True, False):
        inside.train(training)
        relaxed.train(training)
        expected, actual = inside(x, num_codebooks=2), relaxed(moved, num_codebooks=2)
        assert_same(expected[1:], actual[1:])
        assert_same_state(state_of(inside), state_of(relaxed.quantizer))
    assert torch.equal(expected.quantized.movedim(-1, 1), actual.quantized)
    assert torch.equal(relaxed.decode(actual.indices), actual.quantized)
    for options in ({"num_codebooks": 1}, {"beam_width": 3}, {}):
        assert torch.equal(inside.encode(x, **options), relaxed.encode(moved, **options))
    seen: list[Quantizer] = []
    for each in (relaxed, relaxed.quantizer):
        each.register_code_hook(lambda quantizer, event: seen.append(quantizer))
    relaxed(moved)
    relaxed.encode(moved, num_codebooks=1)
    assert seen == [relaxed] * 2  # the outermost quantizer reports
    with pytest.raises(TypeError, match="num_codebooks"):
        relax(VectorQuantizer(DIM, SIZE))(x, num_codebooks=1)


# Bypass


@for_each_case
@given(seed=seeds, shape=shapes, p=st.floats(0, 1), name=st.sampled_from(["vq", "residual", "grouped"]))
def test_a_sample_bypasses_with_all_its_vectors_and_stages_or_not_at_all(
    seed: int, shape: list[int], p: float, name: str
) -> None:
    quantizer = quantizers.create("bypass", DIM, SIZE, quantizer=name, probability=p).double()
    x = normal(seed, *shape, DIM)
    quantized = seeded(quantizer, x, seed=seed).quantized
    codes = quantizer.decode(quantizer.encode(x))
    for vectors, value, code in zip(x, quantized, codes, strict=True):
        assert torch.equal(value, vectors) or torch.equal(value, code)


@given(seed=seeds, p=st.sampled_from([0.1, 0.25, 0.5, 0.9]))
def test_the_share_of_samples_that_bypass_is_the_probability(seed: int, p: float) -> None:
    """Within six standard deviations of a binomial distribution, which one draw in 5 · 10⁸ leaves."""
    n = 10_000
    quantizer = quantizers.create("bypass", 2, 4, probability=p)
    x = normal(seed, n, 2)
    bypassed = (seeded(quantizer, x, seed=seed).quantized == x).all(-1)
    assert abs(int(bypassed.sum()) - n * p) <= 6 * math.sqrt(n * p * (1 - p))


@given(seed=seeds)
def test_a_sample_that_bypasses_gets_the_exact_gradient_and_gives_its_code_none(seed: int) -> None:
    """The others get the gradient of the quantizer inside, here the rotated one, and so do their codes."""
    inside = VectorQuantizer(DIM, SIZE, gradient="rotation", decoder_gradient=True).double()
    quantizer = BypassQuantizer(copy.deepcopy(inside), probability=0.5)
    x, g = normal(seed, 20, DIM), normal(seed + 1, 20, DIM)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    quantized, _, _ = seeded(quantizer, inputs[0], seed=seed)
    quantized.backward(g)
    bypassed = (quantized == x).all(-1)
    inside(inputs[1]).quantized.backward(g.where(~bypassed[:, None], 0.0))
    assert torch.equal(inputs[0].grad, g.where(bypassed[:, None], inputs[1].grad))
    assert torch.equal(quantizer.quantizer.embedding.grad, inside.embedding.grad)


def test_a_bypass_is_taken_in_the_space_of_the_codes() -> None:
    """Both projections apply to a sample that bypasses, so that it has no more channels than a code."""
    quantizer = quantizers.create("bypass", DIM, SIZE, code_dim=2, probability=1.0)
    x = batch(50)
    centered = seeded(quantizer, x).quantized.detach()
    assert torch.linalg.matrix_rank(centered - centered.mean(0), atol=1e-5) == 2
    assert isinstance(quantizer.quantizer.project_in, Projection)
    assert quantizer.code_dim == quantizer.codebook.shape[-1] == 2


def test_a_stage_that_is_bypassed_leaves_nothing() -> None:
    """The value of a residual quantizer is then z plus what its later stages make of zero."""
    stages = [BypassQuantizer(VectorQuantizer(DIM, SIZE), probability=1), VectorQuantizer(DIM, SIZE)]
    quantizer = ResidualQuantizer(DIM, stages)
    x = batch(6)
    quantized, indices, _ = quantizer(x)
    of_zero = stages[1](torch.zeros(1, DIM))
    assert torch.equal(indices[:, 0], stages[0].encode(x))
    assert (indices[:, 1] == of_zero.indices).all()
    assert torch.equal(quantized, x + of_zero.quantized)


def test_samples_draw_for_themselves_and_anew() -> None:
    quantizer = quantizers.create("bypass", DIM, SIZE, probability=0.5)
    x = batch(1, DIM).expand(64, DIM, DIM)
    first, second = ((quantizer(x).quantized == x).all(-1).all(-1) for _ in range(2))
    assert 0 < first.sum() < 64
    assert not torch.equal(first, second)


# Interpolation


@given(seed=seeds, a=st.floats(0, 1, width=32))
def test_the_value_is_on_the_line_and_its_gradient_follows_the_chain_rule(seed: int, a: float) -> None:
    inside = VectorQuantizer(DIM, SIZE, gradient="rotation", decoder_gradient=True).double()
    quantizer = InterpolatedQuantizer(copy.deepcopy(inside), hardness=a)
    x, g = normal(seed, 20, DIM), normal(seed + 1, 20, DIM)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    quantized = quantizer(inputs[0]).quantized
    quantized.backward(g)
    codes = inside(inputs[1]).quantized
    codes.backward(a * g)
    assert torch.equal(quantized, (1 - a) * x + a * codes)
    # Two products and one sum are rounded, of numbers below max(|g|, |rotated g|).
    largest = max(float(g.abs().max()), float(inputs[1].grad.abs().max()))
    assert ((1 - a) * g + inputs[1].grad - inputs[0].grad).abs().max() <= 4 * 2.0**-53 * largest
    assert torch.equal(quantizer.quantizer.embedding.grad, inside.embedding.grad)


def test_the_hardness_may_be_set_between_forward_and_backward() -> None:
    quantizer = quantizers.create("interpolated", DIM, SIZE)
    found = []
    for later in (0.5, 1.0):
        x = batch(5).requires_grad_()
        quantizer.hardness = 0.5
        quantized = quantizer(x).quantized
        quantizer.hardness = later
        found.append(torch.autograd.grad(quantized.square().sum(), x)[0])
    assert torch.equal(*found)


def test_the_hardness_is_state() -> None:
    quantizer = quantizers.create("interpolated", DIM, SIZE)
    quantizer.hardness = 0.25
    fresh = quantizers.create("interpolated", DIM, SIZE)
    assert fresh.hardness == 1.0
    fresh.load_state_dict(quantizer.state_dict())
    assert fresh.hardness == 0.25


@pytest.mark.parametrize("kind", [LinearHardness, CosineHardness])
def test_a_schedule_hardens_every_interpolated_quantizer_of_a_module(kind: Any) -> None:
    stages = [quantizers.create("interpolated", 4, 8) for _ in range(2)]
    model = nn.Sequential(nn.Linear(4, 4), ResidualQuantizer(4, stages), VectorQuantizer(4, 8))
    schedule = kind(model, start=0.0, end=1.0, steps=4)
    seen = [[float(stage.hardness) for stage in stages]]
    for _ in range(5):
        value = schedule.step()
        seen.append([float(stage.hardness) for stage in stages])
        assert seen[-1] == pytest.approx([value] * 2)
    curve = [0, 0.25, 0.5, 0.75, 1, 1]
    if kind is CosineHardness:
        curve = [(1 - math.cos(math.pi * progress)) / 2 for progress in curve]
    assert [first for first, _ in seen] == pytest.approx(curve)
    schedule.load_state_dict({"count": 2})
    assert float(stages[0].hardness) == pytest.approx(0.5)


# Nested, and other places


@given(seed=seeds, a=st.floats(0, 1, width=32))
def test_relaxations_may_be_nested_and_share_the_space_of_the_codes(seed: int, a: float) -> None:
    """Bypassed samples are z in whichever order; the others are interpolated."""
    inside = VectorQuantizer(DIM, SIZE, code_dim=2).double()
    orders = [
        BypassQuantizer(InterpolatedQuantizer(copy.deepcopy(inside), hardness=a), probability=0.5),
        InterpolatedQuantizer(BypassQuantizer(copy.deepcopy(inside), probability=0.5), hardness=a),
    ]
    x = normal(seed, 20, DIM)
    z = inside.project_out(inside.project_in(x))
    line = inside.project_out((1 - a) * inside.project_in(x) + a * inside.codebook[inside.encode(x)])
    for quantizer in orders:
        quantized = seeded(quantizer, x, seed=seed).quantized
        nearer = torch.minimum((quantized - z).abs().amax(-1), (quantized - line).abs().amax(-1))
        # (1 − a)z + az is z up to two roundings, and projections of numbers below 8 add a few dozen.
        assert nearer.max() <= 2.0**-44
        assert quantizer.evaluated is not quantizer
        assert type(quantizer.evaluated) is VectorQuantizer


def test_codes_inside_are_replaced_started_and_frozen() -> None:
    """Replacement sees vectors that bypassed, too: their indices are given."""
    quantizer = quantizers.create("bypass", DIM, SIZE, quantizer="ema_vq", probability=1.0)
    inside = quantizer.quantizer
    assert isinstance(inside, EMAVectorQuantizer)
    quantizers.warm_start(quantizer, [batch(200)])
    started = inside.codebook.clone()
    assert (quantizer.eval().encode(started) == torch.arange(SIZE)).all()
    inside.set_codebook(torch.cat([started[:-1], torch.full((1, DIM), 1e3)]))
    replacement = quantizers.DeadCodeReplacement(quantizer.train(), torch.optim.SGD(nn.Linear(1, 1).parameters()))
    moved = 0
    for step in range(300):
        quantizer(batch(64, seed=step))
        moved += replacement.step()
    assert moved > 0
    assert inside.codebook.abs().max() < 100
    quantizer.freeze()
    assert inside.frozen


def test_what_means_nothing_is_named() -> None:
    vq = VectorQuantizer(DIM, SIZE)
    for wrong in (-0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match=r"probability is .*, expected a probability"):
            BypassQuantizer(vq, probability=wrong)
        with pytest.raises(ValueError, match=r"hardness is .*, expected a number in \[0, 1\]"):
            InterpolatedQuantizer(vq, hardness=wrong)
        with pytest.raises(ValueError, match=r"hardness is .*, expected a number in \[0, 1\]"):
            InterpolatedQuantizer(vq).hardness = wrong
        with pytest.raises(ValueError, match=r"hardnesses are .*, expected numbers in \[0, 1\]"):
            LinearHardness(InterpolatedQuantizer(vq), start=0.0, end=wrong, steps=5)
    with pytest.raises(ValueError, match="module is a VectorQuantizer, in which no quantizer has a hardness"):
        LinearHardness(vq, start=0.0, end=1.0, steps=5)
    for make in (BypassQuantizer, InterpolatedQuantizer):
        with pytest.raises(TypeError, match=r"quantizer is Linear\(.*, expected a Quantizer"):
            make(nn.Linear(2, 2))
        with pytest.raises(ValueError, match="quantizer has channel_dim=1, expected −1"):
            make(VectorQuantizer(DIM, SIZE, channel_dim=1))
