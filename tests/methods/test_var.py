"""VAR's multi-scale quantizer: its equations, and what a model over scales asks of it."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import quantizers
from quantizers import BlendConvolution, VARQuantizer, VectorQuantizer
from quantizers.composite.blends import spread_blends
from quantizers.composite.pyramid import check_scales, pyramid_sizes, upsample
from quantizers.composite.pyramid_quantizer import PyramidQuantizer
from tests.cases import normal
from tests.effort import examples

EPS = torch.finfo(torch.float64).eps
DIM, SIZE = 3, 16
SIDES = {1: (8,), 2: (4, 6), 3: (4, 2, 5)}
seeds = st.integers(0, 2**31)
few = examples(8)
METHODS = ("multiscale", "var")
every_method = pytest.mark.parametrize("method", METHODS)


def build(seed: int = 0, axes: int = 2, method: str = "var", **options: Any) -> PyramidQuantizer:
    torch.manual_seed(seed)
    built = quantizers.create(method, **{"dim": DIM, "codebook_size": SIZE, "axes": axes, **options})
    assert isinstance(built, PyramidQuantizer)
    return built


def maps(seed: int, axes: int = 2, batch: int = 2) -> Tensor:
    return normal(seed, batch, *SIDES[axes], DIM, dtype=torch.float32)


# The equations


@few
@given(seed=seeds, beta=st.floats(0, 2), weight=st.floats(0, 2), blends=st.integers(0, 3))
def test_value_loss_and_gradients_are_those_of_the_sums(
    seed: int, beta: float, weight: float, blends: int
) -> None:
    """Algorithm 1 written out in float64, with PyTorch's own resizing."""
    quantizer = build(seed, num_blends=blends, commitment_weight=beta, codebook_weight=weight).double()
    x = normal(seed, 2, 8, 8, DIM).requires_grad_()
    out = quantizer(x)
    f = x.movedim(-1, 1)
    codes, total, losses = quantizer.components[0].embedding, torch.zeros_like(f), []  # type: ignore[attr-defined]
    modules = list(quantizer.blends)
    for position, side in enumerate((2, 4, 8)):
        means = F.interpolate((f - total).detach(), size=(side, side), mode="area").movedim(1, -1)
        chosen = torch.cdist(means.reshape(-1, DIM), codes).argmin(-1)
        found = quantizer.split(out.indices, (8, 8))[position]
        assert torch.equal(found.reshape(-1), chosen)
        value = F.embedding(chosen, codes).reshape(2, side, side, DIM).movedim(-1, 1)
        value = F.interpolate(value, size=(8, 8), mode="bicubic") if side < 8 else value
        total = total + (spread_blends(position, 3, modules)(value) if modules else value)
        losses.append(beta * F.mse_loss(total.detach(), f) + weight * F.mse_loss(total, f.detach()))
    loss = torch.stack(losses).mean()
    torch.testing.assert_close(out.quantized, total.movedim(1, -1), rtol=0, atol=1e3 * EPS)
    torch.testing.assert_close(out.loss, loss, rtol=1e3 * EPS, atol=1e3 * EPS)
    learned = [parameter for parameter in quantizer.parameters() if parameter.requires_grad]
    (out.loss + out.quantized.sum()).backward()
    own = [parameter.grad.clone() for parameter in learned if parameter.grad is not None]
    expected = torch.autograd.grad(loss + (f - f.detach()).sum(), [x, *learned])
    assert x.grad is not None
    for a, b in zip([x.grad, *own], expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e4 * EPS, atol=1e4 * EPS)


@pytest.mark.parametrize("inside", ["vq", "ema_vq", "fsq", "bsq", "lfq", "simvq", "gumbel"])
def test_any_quantizer_is_the_one_of_each_scale(inside: str) -> None:
    quantizer = build(quantizer=inside)
    x = maps(0).requires_grad_()
    out = quantizer(x)
    decoder = torch.autograd.grad(out.quantized.sum(), x, retain_graph=True)[0]
    if isinstance(quantizer.project_in, nn.Identity):
        assert torch.equal(decoder, torch.ones_like(x))  # straight-through on the sum
    (out.quantized.sum() + out.loss).backward()
    assert out.loss.isfinite()
    learned = [parameter for parameter in quantizer.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None for parameter in learned)


def test_moving_averages_follow_the_means_that_chose_them() -> None:
    quantizer = build(quantizer="ema_vq", decay=0.0, shared=False, axes=1)
    x = maps(0, 1)
    before = quantizer(x).indices
    coarse = quantizer.split(before, SIDES[1])[0].reshape(-1)
    means = F.interpolate(x.movedim(-1, 1), size=2, mode="area").movedim(1, -1).reshape(-1, DIM)
    codes = quantizer.components[0].codebook
    for index in coarse.unique():
        torch.testing.assert_close(codes[index], means[coarse == index].mean(0), rtol=1e-3, atol=1e-3)


def test_codes_that_explain_more_lower_the_loss() -> None:
    """A few hundred steps of Adam on one batch: the loss falls, at every scale."""
    quantizer = build(codebook_size=64, dim=DIM)
    x = F.interpolate(torch.randn(8, DIM, 2, 2), size=(8, 8), mode="bilinear").movedim(1, -1)
    optimizer = torch.optim.Adam(quantizer.parameters(), 3e-2)
    losses = []
    for _ in range(150):
        loss = quantizer(x).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@given(count=st.integers(1, 16), scales=st.integers(1, 16))
def test_blends_are_spread_in_order(count: int, scales: int) -> None:
    """As many as scales are one for each; fewer are in order, and all are used."""
    if count > scales:
        return
    modules = [nn.Identity() for _ in range(count)]
    chosen = [modules.index(spread_blends(position, scales, modules)) for position in range(scales)]
    assert chosen == sorted(chosen)
    if count == scales:
        assert chosen == list(range(scales))
    if scales >= 2 * count:
        assert set(chosen) == set(range(count))


@given(seed=seeds, ratio=st.floats(0, 1), axes=st.integers(1, 3))
def test_a_blend_is_a_share_of_a_convolution(seed: int, ratio: float, axes: int) -> None:
    torch.manual_seed(seed)
    blend = BlendConvolution(DIM, axes, ratio).double()
    x = normal(seed, 2, DIM, *[3] * axes)
    expected = (1 - ratio) * x + ratio * blend.convolution(x)
    torch.testing.assert_close(blend(x), expected, rtol=0, atol=8 * EPS)
    assert blend(x).shape == x.shape


@given(seed=seeds, frames=st.integers(1, 4), full=st.integers(4, 7))
def test_cubic_interpolation_treats_the_axes_alike(seed: int, frames: int, full: int) -> None:
    """A map that changes along one axis alone is interpolated as that line is, on any axis."""
    line = normal(seed, 1, 1, frames)
    expected = upsample(line, (full,), "cubic")
    for axis in range(3):
        shape = [1, 1, 2, 2, 2]
        shape[2 + axis] = frames
        view = [1, 1, 1, 1, 1]
        view[2 + axis] = frames
        size = tuple(full if own == axis else 3 for own in range(3))
        found = upsample(line.reshape(view).expand(shape), size, "cubic")
        other = [1, 1, 1, 1, 1]
        other[2 + axis] = full
        torch.testing.assert_close(found, expected.reshape(other).expand(found.shape), rtol=0, atol=64 * EPS)


# Sizes


def test_scales_by_axis_and_aspect_ratio() -> None:
    """Width and height keep their ratio; the time axis rises first."""
    wide = pyramid_sizes((16, 24), check_scales([1 / 16, 0.25, 1], 2))
    assert wide == [(1, 2), (4, 6), (16, 24)]
    video = build(axes=3, scales=[(0.25, 0.5, 0.5), (1, 0.5, 0.5), (1, 1, 1)])
    assert video.scale_sizes((4, 4, 8)) == [(1, 2, 4), (4, 2, 4), (4, 4, 8)]
    out = video(torch.randn(1, 4, 4, 8, DIM))
    assert out.indices.shape == (1, 8 + 32 + 128)


@every_method
@few
@given(seed=seeds, data=st.data())
def test_sizes_of_a_call_are_scales_of_their_own(method: str, seed: int, data: st.DataObject) -> None:
    """The sizes of the scales, given, change nothing; other sizes are those of a quantizer with such scales."""
    quantizer = (
        build(seed, method=method, axes=1, quantizer="ema_vq", decay=0.5, num_blends=0)
        if (method == "var")
        else build(seed, method=method, axes=1, quantizer="ema_vq", decay=0.5)
    )
    first = data.draw(st.integers(1, 7))
    sizes = [first, 8]
    state = {name: value.clone() for name, value in quantizer.state_dict().items()}
    x = maps(seed, 1)
    out = quantizer(x, sizes=sizes)
    assert out.indices.shape == (2, first + 8)
    moved = quantizer.state_dict()
    other = build(
        seed,
        method=method,
        axes=1,
        quantizer="ema_vq",
        decay=0.5,
        scales=[first / 8, 1.0],
        **({"num_blends": 0} if method == "var" else {}),
    )
    inner = {name: value for name, value in state.items() if name.startswith("quantizers.")}
    other.load_state_dict(inner, strict=False)
    expected = other(x)
    assert torch.equal(out.indices, expected.indices)
    assert torch.equal(out.quantized, expected.quantized)
    for name, value in inner.items():
        if value.is_floating_point():
            assert torch.equal(moved[name], other.state_dict()[name])
            assert not torch.equal(moved[name], value) or "cluster" not in name


@every_method
def test_hooks_see_the_sizes_of_a_call(method: str) -> None:
    quantizer, x = build(method=method, axes=1, shared=False), maps(0, 1)
    with quantizers.watch(quantizer) as usage:
        indices = quantizer.encode(x, sizes=[1, 8])
    counts = usage.usage[""].counts
    assert [int(each.sum()) for each in counts] == [2, 16, 0]
    assert torch.equal(counts[0], torch.bincount(indices[:, 0], minlength=SIZE))


def test_a_relaxed_quantizer_passes_sizes_on() -> None:
    inside = build(axes=1, quantizer="ema_vq", decay=0.5)
    relaxed, x = quantizers.BypassQuantizer(inside, probability=0.5), maps(0, 1)
    out = relaxed(x, sizes=[2, 8])
    assert out.indices.shape == (2, 10)
    again = relaxed.encode(x, sizes=[2, 8])
    assert again.shape == (2, 10)
    assert relaxed.decode(again, size=[(2,), (8,)]).shape == x.shape


# Prefixes


@every_method
@few
@given(seed=seeds, axes=st.integers(1, 3), used=st.integers(1, 3))
def test_a_prefix_of_scales_is_their_sum(method: str, seed: int, axes: int, used: int) -> None:
    quantizer = build(seed, axes, method).double()
    x = normal(seed, 2, *SIDES[axes], DIM)
    indices = quantizer.encode(x)
    levels = quantizer.split(indices, SIDES[axes])
    prefix = torch.cat([level.flatten(1) for level in levels[:used]], 1)
    total = torch.zeros_like(x.movedim(-1, 1))
    modules = list(quantizer.blends)
    for position, level in enumerate(levels[:used]):
        codes = quantizer.components[position].decode(level).movedim(-1, 1)
        full = upsample(codes, SIDES[axes], quantizer.interpolation)
        total = total + (spread_blends(position, 3, modules)(full) if modules else full)
    value = quantizer.decode(prefix, SIDES[axes])
    torch.testing.assert_close(value, total.movedim(1, -1), rtol=0, atol=256 * EPS)
    assert torch.equal(quantizer.latents(indices, SIDES[axes], up_to=used), value)
    assert torch.equal(quantizer.latents(prefix, SIDES[axes]), value)
    assert [level.shape for level in quantizer.split(prefix, SIDES[axes])] == [
        level.shape for level in levels[:used]
    ]


def test_latents_are_in_code_space_and_decode_projects() -> None:
    quantizer = build(channel_dim=1)
    inside = [VectorQuantizer(2, SIZE)] * 3
    projected = VARQuantizer(DIM, inside, scales=(0.25, 0.5, 1.0), axes=2, channel_dim=1)
    indices = projected.encode(torch.randn(2, DIM, 8, 8))
    latents = projected.latents(indices, (8, 8))
    assert latents.shape == (2, 2, 8, 8)
    expected = projected.project_out(latents.movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(projected.decode(indices, (8, 8)), expected)
    assert quantizer.latents(quantizer.encode(torch.randn(1, DIM, 8, 8))).shape == (1, DIM, 8, 8)


# What a model over scales reads


@every_method
@few
@given(seed=seeds, axes=st.integers(1, 3), cut=st.integers(0, 2))
def test_teacher_forcing_equals_step_by_step(method: str, seed: int, axes: int, cut: int) -> None:
    quantizer, size = build(seed, axes, method), SIDES[axes]
    indices = quantizer.encode(maps(seed, axes))
    inputs = quantizer.scale_inputs(indices, size)
    levels = quantizer.split(indices, size)
    steps = quantizer.start_scales(2, size)
    seen = []
    for level in levels:
        assert steps.size == tuple(level.shape[1:])
        seen.append(steps.inputs)
        steps.append(level.flatten(1))
    assert not steps.left
    assert seen[0] is None
    assert torch.equal(torch.cat(seen[1:], 1), inputs)
    assert torch.equal(steps.indices, indices)
    assert inputs.shape == (2, sum(level[0].numel() for level in levels[1:]), DIM)
    # No input depends on the tokens of its own scale or of a later one.
    starts = [0, *itertools.accumulate(level[0].numel() for level in levels)]
    changed = indices.clone()
    changed[:, starts[cut] :] = (changed[:, starts[cut] :] + 1) % SIZE
    known = starts[cut + 1] - starts[1]
    assert torch.equal(quantizer.scale_inputs(changed, size)[:, :known], inputs[:, :known])
    if cut < 2:
        assert not torch.equal(quantizer.scale_inputs(changed, size)[:, known:], inputs[:, known:])


def test_inputs_are_the_averaged_latents() -> None:
    quantizer = build().double()
    indices = quantizer.encode(normal(0, 2, 8, 8, DIM))
    inputs = quantizer.scale_inputs(indices, (8, 8)).split([16, 64], 1)
    for position, found in enumerate(inputs):
        latents = quantizer.latents(indices, (8, 8), up_to=position + 1).movedim(-1, 1)
        side = (4, 8)[position]
        expected = F.interpolate(latents, size=(side, side), mode="area").flatten(2).movedim(1, -1)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_one_scale_has_no_inputs() -> None:
    quantizer = build(scales=[1.0])
    assert quantizer.scale_inputs(quantizer.encode(torch.randn(2, 4, 4, DIM)), (4, 4)).shape == (2, 0, DIM)


# Flipped bits, and fewer scales


@every_method
def test_flipped_bits_are_corrected_by_later_scales(method: str) -> None:
    """With flips, the value of all scales is nearer to x than if only the first scale's bits were flipped."""
    quantizer = build(method=method, quantizer="bsq", codebook_size=256, dim=8)
    x = torch.randn(8, 8, 8, 8)
    targets, indices = quantizer.encode_with_flips(x, 0.5)
    assert targets.shape == indices.shape == quantizer.encode(x).shape
    coarse = quantizer.split(targets, (8, 8))[0]
    assert torch.equal(coarse, quantizer.split(quantizer.encode(x), (8, 8))[0])  # nothing before it was flipped
    uncorrected = quantizer.encode(x)
    uncorrected[:, :4] = indices[:, :4]
    corrected = torch.cat([indices[:, :4], quantizer.encode_with_flips(x, 0.0).targets[:, 4:]], 1)
    assert torch.equal(corrected, uncorrected)
    steps = quantizer.start_scales(8, (8, 8))
    steps.append(indices[:, :4])
    assert steps.latents is not None
    left = x.movedim(-1, 1) - steps.latents
    means = F.interpolate(left, size=(4, 4), mode="area").movedim(1, -1)
    again = quantizer.components[1].encode(means).flatten(1)
    assert torch.equal(again, targets[:, 4:20])


@given(seed=seeds, probability=st.floats(0, 1))
@few
def test_as_many_bits_are_flipped_as_drawn(seed: int, probability: float) -> None:
    torch.manual_seed(seed)
    quantizer = build(seed, quantizer="lfq", codebook_size=2**10, dim=10, flip_probability=probability)
    x = torch.randn(4, 8, 8, 10)
    flipped = quantizer.split(quantizer(x).indices, (8, 8))[0].reshape(-1)
    plain = quantizer.split(quantizer.encode(x), (8, 8))[0].reshape(-1)
    differ = flipped ^ plain
    share = sum(int((differ >> bit & 1).sum()) for bit in range(10)) / (10 * len(differ))
    # 640 draws: six standard deviations.
    assert abs(share - probability) < 6 * (probability * (1 - probability) / 160) ** 0.5 + 1e-9


@every_method
@pytest.mark.parametrize("by", ["sample", "batch"])
def test_scales_are_left_out_from_the_last(method: str, by: str) -> None:
    quantizer = build(method=method, quantizer="ema_vq", dropout=1.0, dropout_by=by)
    x, depths = torch.randn(64, 8, 8, DIM), set()
    before = quantizer.state_dict()
    before = {name: value.clone() for name, value in before.items()}
    out = quantizer(x)
    levels = quantizer.split(out.indices, (8, 8))
    used = torch.stack([(level >= 0).flatten(1).all(1) for level in levels])
    none = torch.stack([(level < 0).flatten(1).all(1) for level in levels])
    assert torch.equal(used, ~none)
    assert used[0].all()
    assert (used[1:] <= used[:-1]).all()
    depths = set(used.sum(0).tolist())
    assert len(depths) == (1 if by == "batch" else 3)
    quantizer.load_state_dict(before)
    assert torch.equal(quantizer.decode(out.indices, (8, 8)), out.quantized)
    whole = quantizer.eval()(x)
    assert (whole.indices >= 0).all()


@few
@given(seed=seeds)
def test_the_loss_is_of_the_scales_that_are_used(seed: int) -> None:
    """Each term is the mean over the maps that reach its scale."""
    quantizer = build(seed, dropout=1.0, num_blends=0).double()
    x = normal(seed, 8, 8, 8, DIM)
    out = quantizer(x)
    used = torch.stack([(level >= 0).flatten(1).all(1) for level in quantizer.split(out.indices, (8, 8))])
    expected = 0.0
    for position in range(3):
        alive = used[position]
        if not alive.any():
            continue
        ends = (4, 20, 84)[position]
        value = quantizer.decode(out.indices[alive, :ends], (8, 8))
        expected += 1.25 * F.mse_loss(value, x[alive]).item() / 3
    torch.testing.assert_close(out.loss.item(), expected, rtol=1e4 * EPS, atol=1e4 * EPS)


# Errors


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([(4, 4), (2, 2), (8, 8)], "expected them to ascend"),
        ([(2, 4), (4, 2), (8, 8)], "expected them to ascend"),
        ([(2, 2), (12, 4)], r"contain \(12, 4\), which is larger than x's size \(8, 8\)"),
        ([(2, 2), (4, 4)], r"end with \(4, 4\), expected x's size \(8, 8\)"),
        ([1, 2, 4, 8], "got 4 sizes for 3 scales; expected at most one per scale"),
        ([], r"sizes are \[\], expected the size of each scale"),
        ([(2, 2, 2), (8, 8)], r"contain \(2, 2, 2\), expected one number, or one for each of 2 axes"),
        ([0, 8], "each of sizes is 0, expected an integer of at least 1"),
        ([2.5, 8], "each of sizes is 2.5, expected an integer"),
    ],
)
def test_sizes_that_do_not_fit_are_named(sizes: Any, message: str) -> None:
    quantizer, x = build(), torch.zeros(1, 8, 8, DIM)
    for call in (quantizer, quantizer.encode):
        with pytest.raises(ValueError, match=message):
            call(x, sizes=sizes)


def test_maps_of_several_sizes_are_named() -> None:
    quantizer = build()
    for call in (quantizer, quantizer.encode):
        with pytest.raises(TypeError, match=r"x is a list of maps of shapes .*\(4, 4, 3\), \(8, 8, 3\).*one size"):
            call([torch.zeros(8, 8, DIM), torch.zeros(4, 4, DIM)])  # type: ignore[arg-type]


def test_tokens_that_do_not_fit_are_named() -> None:
    quantizer = build()
    indices = torch.zeros(2, 84, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"indices have 83 tokens, expected 84 for size \(8, 8\), or one of \["):
        quantizer.decode(indices[:, 1:], (8, 8))
    with pytest.raises(ValueError, match=r"indices have 84 tokens, expected 80 for size \(8, 8\)"):
        quantizer.decode(indices, [(4, 4), (8, 8)])
    with pytest.raises(ValueError, match="up_to is 4, expected at most 3"):
        quantizer.latents(indices, (8, 8), up_to=4)
    with pytest.raises(ValueError, match="up_to is 0, expected an integer of at least 1"):
        quantizer.latents(indices, (8, 8), up_to=0)
    steps = quantizer.start_scales(2, (8, 8))
    with pytest.raises(ValueError, match=r"tokens have shape \(2, 3\), expected \(2, 4\)"):
        steps.append(indices[:, :3])
    with pytest.raises(TypeError, match="tokens have dtype"):
        steps.append(indices[:, :4].float())
    with pytest.raises(IndexError, match="indices range from 16 to 16"):
        steps.append(indices[:, :4] + SIZE)
    for count in (4, 16, 64):
        steps.append(indices[:, :count])
    with pytest.raises(RuntimeError, match="all 3 scales have their tokens"):
        steps.append(indices[:, :4])


def test_flips_need_bits() -> None:
    with pytest.raises(ValueError, match="a component is VectorQuantizer, whose codes are not bits"):
        build(flip_probability=0.5)
    with pytest.raises(ValueError, match="whose codes are not bits"):
        build().encode_with_flips(maps(0), 0.5)
    with pytest.raises(ValueError, match="probability is 2"):
        build(quantizer="lfq").encode_with_flips(maps(0), 2.0)


def test_a_component_that_would_not_learn_is_named() -> None:
    with pytest.raises(ValueError, match="a component projects from 3 to 2 channels, which would learn nothing"):
        VARQuantizer(DIM, [VectorQuantizer(DIM, 4, code_dim=2)], scales=(1.0,), axes=2)


def test_blends_that_are_too_many_are_named() -> None:
    with pytest.raises(ValueError, match="got 4 blends for 3 scales; expected at most one per scale"):
        VARQuantizer(
            DIM,
            [VectorQuantizer(DIM, 4)] * 3,
            scales=(0.25, 0.5, 1.0),
            axes=2,
            blends=[BlendConvolution(DIM, 2) for _ in range(4)],
        )
    with pytest.raises(TypeError, match="there is no option 'blends'"):
        build(blends=[nn.Identity()])


def test_marks_are_those_of_the_published_code() -> None:
    """Ten scales and four convolutions, as in VAR's released models."""
    modules = [nn.Identity() for _ in range(4)]
    ticks = np.linspace(1 / 3 / 4, 1 - 1 / 3 / 4, 4)
    expected = [int(np.argmin(np.abs(ticks - position / 9))) for position in range(10)]
    assert [modules.index(spread_blends(position, 10, modules)) for position in range(10)] == expected
