"""Residual quantization as laws: the recursion, loss and gradient, prefixes, dropout, scales, shared codebooks."""

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import quantizers
from quantizers import EMAVectorQuantizer, ResidualQuantizer, VectorQuantizer
from quantizers.composite.residual_fsq import FINEST_STEP, LEAST_FALL
from quantizers.core.output import NO_CODE
from quantizers.serialization.configuration import configuration, rebuild
from tests.cases import assert_same_state, normal, state_of
from tests.effort import examples

EPS = torch.finfo(torch.float64).eps
DIM, SIZE, STAGES = 3, 8, 3
seeds = st.integers(0, 2**31)
few = examples(10)
VALUES: list[dict[str, Any]] = [
    {},
    {"code_dim": 2},
    {"stage_dim": 2},
    {"scales": [1.0, 0.5, 0.25]},
    {"dropout": 1.0},
    {"quantizer": "rotation_vq"},
]


def residual(seed: int = 0, **options: Any) -> ResidualQuantizer:
    """Of three stages, in float64, from a seed; each stage's codes smaller than those of the one before."""
    torch.manual_seed(seed)
    built = quantizers.create(
        "residual", **{"dim": DIM, "codebook_size": SIZE, "num_quantizers": STAGES, **options}
    ).double()
    assert isinstance(built, ResidualQuantizer)
    return built


def written_out(quantizer: ResidualQuantizer, z: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The value, the indices and the stages' inputs, by the recursion, of stages with a Euclidean codebook."""
    left, value, columns, inputs = z, torch.zeros_like(z), [], []
    for stage in quantizer.components:
        inputs.append(left)
        columns.append(torch.cdist(left, stage.codebook).argmin(-1))
        value = value + stage.codebook[columns[-1]]
        left = left - stage.codebook[columns[-1]]
    return value.detach(), torch.stack(columns, -1), [r.detach() for r in inputs]


# Recursion and loss


@few
@given(seed=seeds, n=st.integers(1, 20), shared=st.booleans())
def test_each_stage_quantizes_what_is_left(seed: int, n: int, shared: bool) -> None:
    quantizer, z = residual(seed, shared=shared), normal(seed, n, DIM)
    value, indices, _ = written_out(quantizer, z)
    out = quantizer(z)
    assert torch.equal(out.indices, indices)
    assert torch.equal(out.quantized, value)  # the same sums in the same order


@few
@given(seed=seeds, n=st.integers(1, 20), name=st.sampled_from(["vq", "ema_vq", "simvq", "lfq"]))
def test_the_loss_is_the_sum_of_each_stages_own(seed: int, n: int, name: str) -> None:
    quantizer = residual(seed, quantizer=name, codebook_size=2**DIM).eval()
    z = normal(seed, n, DIM)
    out = quantizer.forward_stages(z)
    assert out.loss.shape == (STAGES,)
    torch.testing.assert_close(out.loss.sum(), quantizer(z).loss, rtol=4 * EPS, atol=0)
    left = z
    for stage, loss in zip(quantizer.components, out.loss, strict=True):
        alone = stage(left)
        torch.testing.assert_close(loss, alone.loss, rtol=8 * EPS, atol=8 * EPS)
        left = left - alone.quantized.detach()


@few
@given(seed=seeds, n=st.integers(1, 20), count=st.integers(1, STAGES), options=st.sampled_from(VALUES))
def test_the_values_of_stages_are_what_each_index_stands_for(
    seed: int, n: int, count: int, options: dict[str, Any]
) -> None:
    quantizer, z = residual(seed, **options), normal(seed, n, DIM)
    mask = torch.arange(n) > 0
    torch.manual_seed(seed)
    output, values = quantizer.forward_values(z, mask, num_codebooks=count)
    torch.manual_seed(seed)
    for own, other in zip(output, quantizer.forward_stages(z, mask, num_codebooks=count), strict=True):
        assert torch.equal(own, other)
    assert len(values) == count
    for place, value in enumerate(values):
        alone = torch.full_like(output.indices, NO_CODE)
        alone[:, place] = output.indices[:, place]
        assert value.shape == z.shape
        torch.testing.assert_close(value, quantizer.decode(alone), rtol=1e-12, atol=1e-14)
    if isinstance(quantizer.project_out, nn.Identity):
        torch.testing.assert_close(torch.stack(values).sum(0), output.quantized, rtol=1e-12, atol=1e-14)


def test_values_compile() -> None:
    quantizer, z = residual(code_dim=2), normal(0, 20, DIM)
    compiled = torch.compile(lambda x: quantizer.forward_values(x)[1], fullgraph=True, backend="eager")
    for found, expected in zip(compiled(z), quantizer.forward_values(z)[1], strict=True):
        assert torch.equal(found, expected)


def test_the_first_value_has_the_gradient_of_a_quantizer_of_one_stage() -> None:
    quantizer, z, g = residual(code_dim=2), normal(0, 20, DIM).requires_grad_(), normal(1, 20, DIM)
    _, values = quantizer.forward_values(z)
    own = (z, *quantizer.components[0].parameters())
    gradients = torch.autograd.grad((values[0] * g).sum(), own, allow_unused=True)
    expected = torch.autograd.grad((quantizer.components[0](z).quantized * g).sum(), own, allow_unused=True)
    for found, other in zip(gradients, expected, strict=True):
        assert (found is None) == (other is None)
        if found is not None:
            torch.testing.assert_close(found, other, rtol=1e-12, atol=1e-14)


# Prefixes


@few
@given(seed=seeds, count=st.integers(1, STAGES), beams=st.sampled_from([1, 3]))
def test_the_first_codebooks_are_a_quantizer(seed: int, count: int, beams: int) -> None:
    quantizer, z = residual(seed), normal(seed, 15, DIM)
    shorter = ResidualQuantizer(DIM, quantizer.components[:count]).double()
    indices = quantizer.encode(z, num_codebooks=count, beam_width=beams)
    assert torch.equal(indices, shorter.encode(z, beam_width=beams))
    if beams == 1:
        assert torch.equal(indices, quantizer.encode(z)[:, :count])
    pairs = zip(quantizer.components, indices.T, strict=False)
    codes = [stage.codebook[column] for stage, column in pairs]
    assert torch.equal(quantizer.decode(indices), sum(codes[1:], codes[0]))


@few
@given(seed=seeds, count=st.integers(1, STAGES), name=st.sampled_from(["vq", "ema_vq"]), training=st.booleans())
def test_a_forward_of_the_first_codebooks_is_that_of_their_quantizer(
    seed: int, count: int, name: str, training: bool
) -> None:
    """Output, loss, gradients, and what moves; the stages behind see nothing of it."""
    quantizer, z = residual(seed, quantizer=name).train(training), normal(seed, 15, DIM)
    other, inputs = copy.deepcopy(quantizer), [z.clone().requires_grad_(), z.clone().requires_grad_()]
    shorter = ResidualQuantizer(DIM, other.components[:count]).double().train(training)
    behind = [state_of(stage) for stage in quantizer.components[count:]]
    found, expected = quantizer(inputs[0], num_codebooks=count), shorter(inputs[1])
    assert all(map(torch.equal, found, expected))
    for out in (found, expected):
        (out.quantized.square().sum() + out.loss).backward()
    assert torch.equal(inputs[0].grad, inputs[1].grad)
    assert_same_state(state_of(quantizer), state_of(other))
    for stage, before in zip(quantizer.components[count:], behind, strict=True):
        assert_same_state(state_of(stage), before)
        assert not any(p.grad is not None and p.grad.any() for p in stage.parameters())


def test_hooks_take_a_forward_of_fewer_codebooks() -> None:
    quantizer, x = residual(), normal(0, 40, DIM)
    optimizer = torch.optim.SGD(quantizer.parameters(), lr=0.0)
    replacement = quantizers.DeadCodeReplacement(quantizer, optimizer, threshold=0.9, decay=0.0)
    last = quantizer.components[-1].codebook.clone()
    quantizer(x, num_codebooks=2)
    assert replacement.step() > 0
    assert torch.equal(quantizer.components[-1].codebook, last)


def test_only_whole_stages_can_be_asked_for() -> None:
    pairs = [quantizers.create("grouped", dim=4, codebook_size=SIZE) for _ in range(2)]
    quantizer, x = ResidualQuantizer(4, pairs), torch.randn(5, 4)
    assert torch.equal(quantizer.encode(x, num_codebooks=2), quantizer.encode(x)[:, :2])
    for count in (0, 1, 3, 5):
        with pytest.raises(ValueError, match=rf"num_codebooks is {count}, expected one of \[2, 4\]"):
            quantizer.encode(x, num_codebooks=count)
        with pytest.raises(ValueError, match=rf"num_codebooks is {count}, expected one of \[2, 4\]"):
            quantizer(x, num_codebooks=count)
        with pytest.raises(
            ValueError, match=rf"indices have {count} columns on the last axis, expected one of \[2, 4\]"
        ):
            quantizer.decode(torch.zeros(5, count, dtype=torch.int64))


# Gradients: the chain rule


@few
@given(seed=seeds, n=st.integers(1, 20))
def test_straight_through_stages_pass_the_gradient_and_the_first_loss(seed: int, n: int) -> None:
    quantizer, z, g = residual(seed), normal(seed, n, DIM).requires_grad_(), normal(seed + 1, n, DIM)
    out = quantizer.forward_stages(z)
    (through,) = torch.autograd.grad((out.quantized * g).sum(), z, retain_graph=True)
    # g itself, plus what arrives on the residual and goes back along the code: at most a rounding each.
    torch.testing.assert_close(through, g, rtol=2 * STAGES * EPS, atol=0)
    first = quantizer.components[0].codebook[out.indices[:, 0]].detach()
    for place, loss in enumerate(out.loss):
        (found,) = torch.autograd.grad(loss, z, retain_graph=True)
        expected = 0.25 * 2 * (z - first).detach() / (n * DIM) if place == 0 else torch.zeros_like(z)
        torch.testing.assert_close(found, expected, rtol=8 * EPS, atol=8 * EPS)


def test_stages_that_project_pass_the_losses_of_all() -> None:
    """r_1 = z − P_out(P_in z) moves with z where P_out P_in is not the identity."""
    quantizer, z = residual(code_dim=2), normal(0, 20, DIM).requires_grad_()
    out = quantizer.forward_stages(z)
    first = quantizer.components[0]
    through = first.project_in.weight.T @ first.project_out.weight.T  # d value_0 / d z, of rows
    (found,) = torch.autograd.grad(out.loss[1], z, retain_graph=True)
    left = (z - first(z).quantized).detach().requires_grad_()
    (own,) = torch.autograd.grad(quantizer.components[1](left).loss, left)
    torch.testing.assert_close(found, own - own @ through.T, rtol=1e-12, atol=1e-14)
    assert found.abs().max() > 1e-4


@few
@given(seed=seeds)
def test_a_shared_codebook_gets_the_gradients_of_all_stages(seed: int) -> None:
    shared, z = residual(seed, shared=True), normal(seed, 20, DIM)
    apart = ResidualQuantizer(DIM, [copy.deepcopy(shared.components[0]) for _ in range(STAGES)]).double()
    shared(z).loss.backward()
    apart(z).loss.backward()
    total = sum(stage.embedding.grad for stage in apart.components)
    torch.testing.assert_close(shared.components[0].embedding.grad, total, rtol=64 * EPS, atol=64 * EPS)


# Shared averages


@few
@given(seed=seeds, n=st.integers(1, 20))
def test_a_shared_codebook_averages_once_over_all_stages(seed: int, n: int) -> None:
    quantizer, z = residual(seed, quantizer="ema_vq", shared=True, decay=0.75), normal(seed, n, DIM)
    (stage,) = quantizer.quantizers
    before = copy.deepcopy(stage)
    _, indices, inputs = written_out(quantizer, z)
    quantizer(z)
    one_hot = F.one_hot(indices.T.reshape(-1), SIZE).double()
    size = 0.75 * before.cluster_size + 0.25 * one_hot.sum(0)
    total = 0.75 * before.embedding_sum + 0.25 * one_hot.T @ torch.cat(inputs)
    smoothed = (size + 1e-5) / (size.sum() + SIZE * 1e-5) * size.sum()
    tolerance = {"rtol": n * 16 * EPS, "atol": n * 16 * EPS}  # sums of up to 3n terms in any order
    torch.testing.assert_close(stage.cluster_size, size, **tolerance)
    torch.testing.assert_close(stage.embedding_sum, total, **tolerance)
    torch.testing.assert_close(stage.embedding, total / smoothed[:, None], **tolerance)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_share_their_codebook_too(copied: Any) -> None:
    quantizer, x = residual(quantizer="ema_vq", shared=True), normal(0, 20, DIM)
    assert sum("cluster_size" in name for name in quantizer.state_dict()) == 1
    other = copied(quantizer)
    first, *rest = other.components
    assert all(stage is first for stage in rest)
    assert first is not quantizer.components[0]
    quantizer(x)
    other(x)
    assert_same_state(state_of(quantizer), state_of(other))


# Dropout


def kept(indices: Tensor) -> Tensor:
    """The number of stages that each vector kept; those left out are the last."""
    count = (indices >= 0).sum(-1)
    assert torch.equal(indices >= 0, torch.arange(indices.shape[-1]) < count[..., None])
    return count


def test_a_sample_keeps_its_first_stages_uniformly_many() -> None:
    """Pearson's χ² of three classes has two degrees of freedom: above 13.8 with probability 10⁻³, of one seed."""
    quantizer = residual(dropout=1.0)
    samples = 900
    counts = kept(quantizer(normal(0, samples, 2, DIM)).indices)
    assert torch.equal(counts[:, 0], counts[:, 1])
    found = torch.bincount(counts[:, 0], minlength=STAGES + 1)[1:].double()
    assert found.sum() == samples
    assert ((found - samples / STAGES) ** 2 / (samples / STAGES)).sum() < 13.8


def test_dropout_falls_on_its_share_of_the_samples() -> None:
    """With probability ½ · ⅔ a sample keeps fewer than all: within five standard deviations."""
    quantizer = residual(dropout=0.5)
    fewer = (kept(quantizer(normal(0, 900, 1, DIM)).indices) < STAGES).double().mean()
    assert abs(fewer - 1 / 3) < 5 * (2 / 9 / 900) ** 0.5


def test_a_batch_keeps_as_many_throughout() -> None:
    quantizer, x = residual(dropout=1.0, dropout_by="batch"), normal(0, 5, 2, DIM)
    counts = [kept(quantizer(x).indices).unique() for _ in range(30)]
    assert all(len(count) == 1 for count in counts)
    assert set(map(int, counts)) == {1, 2, 3}


@pytest.mark.parametrize("shape", [(), (0,), (7,), (0, 3), (4, 3), (2, 3, 2)], ids=str)
def test_dropout_at_any_shape(shape: tuple[int, ...]) -> None:
    quantizer, z = residual(dropout=1.0), normal(0, *shape, DIM)
    out = quantizer(z)
    kept(out.indices)
    assert torch.equal(quantizer.decode(out.indices), out.quantized)


@few
@given(seed=seeds)
def test_stages_left_out_leave_no_trace(seed: int) -> None:
    """Loss and averages of a stage are those of the vectors that reached it."""
    quantizer = residual(seed, quantizer="ema_vq", dropout=1.0)
    alone = copy.deepcopy(quantizer)
    z = normal(seed, 30, DIM)
    _, _, inputs = written_out(quantizer, z)
    out = quantizer.forward_stages(z)
    counts = kept(out.indices)
    for place, stage in enumerate(alone.components):
        own = stage(inputs[place][counts > place])
        torch.testing.assert_close(out.loss[place], own.loss, rtol=64 * EPS, atol=64 * EPS)
        after = state_of(quantizer.components[place])
        for name, value in state_of(stage).items():
            # Residuals that were taken by one subtraction here and there are the same; sums in another order.
            torch.testing.assert_close(after[name], value, rtol=64 * EPS, atol=64 * EPS)


def test_no_dropout_keeps_all() -> None:
    x = normal(0, 20, DIM)
    assert (kept(residual(dropout=0.0)(x).indices) == STAGES).all()
    evaluated = residual(dropout=1.0).eval()
    assert (kept(evaluated(x).indices) == STAGES).all()
    assert (kept(evaluated.train().encode(x)) == STAGES).all()


# Scales


@few
@given(
    seed=seeds, stages=st.integers(1, 4), levels=st.lists(st.sampled_from([3, 5, 7, 9]), min_size=1, max_size=3)
)
def test_finer_grids_halve_the_cell_of_the_one_before(seed: int, stages: int, levels: list[int]) -> None:
    quantizer = quantizers.create("residual_fsq", dim=len(levels), levels=levels, num_quantizers=stages).double()
    z = 3 * normal(seed, 50, len(levels))
    last = torch.tensor([float(2 * (level // 2)) ** -stages for level in levels], dtype=torch.float64)
    error = (z.tanh() - quantizer(z).quantized).abs()
    # Scales are float32 logarithms, |log s| ≤ 4 log 8 < 9, off by ε₃₂ · 9; a code is one at most.
    assert (error <= last + 10 * torch.finfo(torch.float32).eps).all()


def test_each_stage_of_grids_takes_from_the_error() -> None:
    quantizer = quantizers.create("residual_fsq", dim=3, levels=(5, 5, 5), num_quantizers=4).double()
    assert isinstance(quantizer, ResidualQuantizer)
    z = normal(0, 200, 3)
    codes = [quantizer.decode(quantizer.encode(z, num_codebooks=count)) for count in range(1, 5)]
    errors = torch.stack([(z.tanh() - code).square().mean() for code in codes])
    # A uniform error shrinks by the number of cells, 4, of its amplitude: by 16; half of that is safe.
    assert (errors[1:] < errors[:-1] / 8).all()


@few
@given(
    seed=seeds,
    stages=st.integers(1, 40),
    levels=st.lists(st.sampled_from([2, 3, 4, 5, 7, 8, 16, 64, 1000]), min_size=1, max_size=3),
)
@example(seed=0, stages=32, levels=[8, 5, 5, 5])
@example(seed=0, stages=9, levels=[8, 5, 5, 5])
def test_codes_of_many_stages_are_not_those_of_rounding(seed: int, stages: int, levels: list[int]) -> None:
    """Where z moves by its last bit, hardly a code of any stage does: all steps are far above the rounding of
    tanh."""
    stages = min(stages, *(1 + int(math.log(2**14 // (level // 2), LEAST_FALL)) for level in levels))
    quantizer = quantizers.create("residual_fsq", dim=len(levels), levels=levels, num_quantizers=stages)
    assert isinstance(quantizer, ResidualQuantizer)
    scales, halves = torch.tensor(quantizer.initial_scales), torch.tensor([level // 2 for level in levels])
    steps = scales / halves
    assert (steps >= FINEST_STEP * (1 - 1e-6)).all()
    u = torch.rand(4000, len(levels), generator=torch.Generator().manual_seed(seed)) * 2 - 1
    z = torch.atanh(u.double()).float()
    moved = quantizer.encode(z) != quantizer.encode(z.nextafter(torch.tensor(torch.inf)))
    # A uniform u is within δ of a boundary of a stage with probability δ / step; of this or an earlier stage
    # with at most the sum. tanh(z) moves by 0.45 · 2⁻²³ at most, and each of the two tanh is off by up to 2⁻²³.
    delta = (0.45 + 2) * 2**-23
    chance = (delta / steps).sum(-1).cumsum(0)
    spread = 6 * (chance / len(z)).sqrt() + 8 / len(z)
    assert (moved.float().mean(0) <= chance + spread).all()


@pytest.mark.parametrize(("levels", "stages", "most"), [((8,), 39, 38), ((3, 3), 45, 44), ((2**15,), 2, 1)])
def test_more_stages_than_float32_tells_apart_are_refused(levels: tuple[int, ...], stages: int, most: int) -> None:
    with pytest.raises(
        ValueError, match=f"num_quantizers is {stages} with {levels[0]} levels .* at most {most}: fl"
    ):
        quantizers.create("residual_fsq", dim=len(levels), levels=levels, num_quantizers=stages)
    quantizers.create("residual_fsq", dim=len(levels), levels=levels, num_quantizers=most)
    with pytest.raises(ValueError, match="levels holds 65536, expected at most 32769"):
        quantizers.create("residual_fsq", dim=1, levels=(2**16,))
    scales = [1.0 / (place + 1) for place in range(stages)]  # given scales are taken as they are
    own = quantizers.create("residual_fsq", dim=len(levels), levels=levels, num_quantizers=stages, scales=scales)
    assert isinstance(own, ResidualQuantizer)
    assert own.initial_scales[-1] == [scales[-1]] * len(levels)


def test_learned_scales_follow_the_codes() -> None:
    """d Σ g·q / d log s = Σ g · (q − r ∘ dq̃/dr̃): with straight-through, s (e − r/s)."""
    quantizer = residual(learn_scales=True, scales=[1.0, 0.5, 0.25])
    z, g = normal(0, 20, DIM), normal(1, 20, DIM)
    out = quantizer(z)
    (found,) = torch.autograd.grad((out.quantized * g).sum(), [quantizer.log_scales])
    # Each stage passes on r_{i+1} = r_i − q_i, and the next gives that back: what is left is the last stage's.
    scale = quantizer.log_scales[-1].exp()
    last = scale * quantizer.components[-1].codebook[out.indices[:, -1]]
    left = z - quantizer.decode(out.indices[:, :-1])
    torch.testing.assert_close(found[-1], (g * (last - left)).sum(0).detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[:-1], torch.zeros_like(found[:-1]), rtol=0, atol=1e-12)


def test_scales_divide_and_multiply() -> None:
    scales = [[1.0, 2.0, 4.0], [0.5, 0.5, 0.5], [0.25, 1.0, 0.125]]
    quantizer, z = residual(scales=scales), normal(0, 20, DIM)
    out, left, value = quantizer(z), z, torch.zeros_like(z)
    for stage, scale, column in zip(
        quantizer.components, torch.tensor(scales).double(), out.indices.T, strict=True
    ):
        assert torch.equal(column, torch.cdist(left / scale, stage.codebook).argmin(-1))
        code = scale * stage.codebook[column]
        left, value = left - code, value + code
    # exp(log s) in float32's logarithm: |log s| < 2.1.
    torch.testing.assert_close(out.quantized, value, rtol=0, atol=20 * torch.finfo(torch.float32).eps)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scales": [1.0]}, "got 1 scales for 3 stages; expected one per stage"),
        (
            {"scales": [[1.0]] * 3},
            "scales hold 1 numbers for a stage; expected one, or one for each of 3 channels",
        ),
        ({"scales": [1.0, 0.0, 1.0]}, "scales hold 0.0, expected finite numbers above 0"),
        ({"scales": [1.0, [1.0, float("nan"), 1.0], 1.0]}, "scales hold nan"),
        ({"scales": [1.0, float("inf"), 1.0]}, "scales hold inf"),
        ({"dropout": 1.5}, "dropout is 1.5, expected a probability"),
        ({"dropout_by": "vector"}, "dropout_by is 'vector', expected 'sample' or 'batch'"),
        ({"num_quantizers": 0}, "num_quantizers is 0"),
        ({"codebook_size": (8, 8), "num_quantizers": 3}, "codebook_size has 2 sizes for num_quantizers=3 stages"),
        ({"codebook_size": ()}, "codebook_size is empty, expected one size for each stage"),
        (
            {"codebook_size": (4, 8), "shared": True},
            r"codebook_size is \[4, 8\], expected one number where shared=True",
        ),
        ({"codebook_size": (4, 0), "num_quantizers": 2}, "codebook_size is 0"),
    ],
)
def test_options_that_do_not_fit_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        residual(**options)


# Which components


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("none", {}, "Identity, which has no codes"),
        ("multiscale", {"codebook_size": 8}, "MultiScaleQuantizer, which quantizes maps"),
        ("vq", {"codebook_size": 8, "channel_dim": 1}, "a component has channel_dim=1, expected −1"),
    ],
)
def test_parts_that_do_not_fit_are_named(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResidualQuantizer(DIM, [quantizers.create(name, dim=DIM, **options)])


def test_a_part_is_a_quantizer() -> None:
    with pytest.raises(ValueError, match="expected at least one stage"):
        ResidualQuantizer(DIM, [])
    with pytest.raises(ValueError, match=r"stages have dims \[2, 3\]"):
        ResidualQuantizer(DIM, [VectorQuantizer(2, 4), VectorQuantizer(3, 4)])
    with pytest.raises(TypeError, match=r"stages\[0\] is Linear.*expected a Quantizer"):
        ResidualQuantizer(DIM, [nn.Linear(3, 3)])  # type: ignore[list-item]


@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (0,)], ids=str)
def test_stages_of_different_sizes_each_know_their_own(shape: tuple[int, ...]) -> None:
    quantizer = ResidualQuantizer(
        DIM, [EMAVectorQuantizer(DIM, 50), quantizers.create("fsq", dim=DIM, levels=(3, 3, 3))]
    )
    x = normal(0, *shape, DIM, dtype=torch.float32)
    out = quantizer.eval()(x)
    assert torch.equal(quantizer.decode(out.indices), out.quantized)
    with pytest.raises(ValueError, match="the codebooks differ in shape"):
        _ = quantizer.codebook
    if 0 not in shape:
        quantizer.decode(torch.tensor([49, 26]).expand(*shape, 2))
        for bad, size in (([50, 0], 50), ([0, 27], 27)):
            with pytest.raises(IndexError, match=f"expected 0 to {size - 1}"):
                quantizer.decode(torch.tensor(bad).expand(*shape, 2))


@few
@given(seeds, st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_one_line_gives_each_stage_a_size_of_its_own(seed: int, sizes: list[int]) -> None:
    """It is the quantizer of stages that are built one by one, and its configuration builds it again."""
    torch.manual_seed(seed)
    built = quantizers.create("residual", dim=DIM, codebook_size=sizes)
    torch.manual_seed(seed)
    expected = ResidualQuantizer(DIM, [VectorQuantizer(DIM, size) for size in sizes])
    x = normal(seed, 20, DIM, dtype=torch.float32)
    assert built.codebook_sizes == tuple(sizes)
    assert torch.equal(built.encode(x), expected.encode(x))
    assert torch.equal(built.decode(built.encode(x)), built(x).quantized)
    rebuilt = rebuild(configuration(built))
    rebuilt.load_state_dict(built.state_dict())
    assert torch.equal(rebuilt.encode(x), built.encode(x))


@examples(10)
@given(st.integers(0, 2**31), st.integers(1, 3))
def test_stages_decode_one_by_one(seed: int, count: int) -> None:
    """Added up and projected they are the value; a stage without a code adds zero."""
    torch.manual_seed(seed)
    quantizer = quantizers.create(
        "residual", dim=6, codebook_size=8, stage_dim=4, num_quantizers=3, channel_dim=1, scales=(1.0, 0.5, 0.25)
    )
    assert [stage.dim for stage in quantizer.components] == [4] * 3
    indices = torch.randint(-1, 8, (2, 5, count))
    codes = quantizer.decode_stages(indices)
    assert codes.shape == (count, 2, 5, 4)
    assert (codes[:, (indices == -1)[..., 0]][0] == 0).all()
    some = (indices >= 0).any(-1)
    total = torch.zeros(2, 5, 4)
    for stage in codes:
        total = total + stage
    rows = quantizer.project_out(total[some])
    torch.testing.assert_close(quantizer.decode(indices).movedim(1, -1)[some], rows)
    assert torch.equal(codes[0], quantizer.components[0].decode(indices[..., 0]))
    with pytest.raises(IndexError, match="indices range"):
        quantizer.decode_stages(indices + 8)
