"""The pyramid: its equations, and the whole contract, which for indices of cells is another than for vectors'."""

import copy
import io
import itertools
import pickle
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn import functional as F

import quantizers
from quantizers import EMAVectorQuantizer, MultiScaleQuantizer, VectorQuantizer
from quantizers.composite.pyramid import pyramid_sizes
from quantizers.composite.pyramid_quantizer import PyramidQuantizer
from tests.cases import assert_same_state, normal, state_of
from tests.effort import examples
from tests.versions import TORCH

EPS = torch.finfo(torch.float64).eps
DIM, SIZE = 3, 16
seeds = st.integers(0, 2**31)
few = examples(8)
SIZES = {1: (8,), 2: (4, 6), 3: (4, 2, 5)}
every_axes = pytest.mark.parametrize("axes", [1, 2, 3])
# What changes what is computed.
OPTIONS: list[dict[str, Any]] = [
    {},
    {"quantizer": "ema_vq", "interpolation": "nearest"},
    {"quantizer": "ema_vq", "shared": False, "decay": 0.5, "scales": (0.3, 1.0)},
    {"quantizer": "rotation_vq", "code_dim": 2, "interpolation": "cubic"},
    {"quantizer": "fsq", "channel_dim": 1},
    {"method": "var"},
    {"method": "var", "scales": (0.25, 0.5, 0.5, 1.0, 1.0)},
    {"method": "var", "quantizer": "ema_vq", "shared": False, "gradient": "rotation", "interpolation": "linear"},
    {"method": "var", "quantizer": "bsq", "num_blends": 1, "channel_dim": 1},
]
every_option = pytest.mark.parametrize("options", OPTIONS, ids=str)


def pyramid(seed: int = 0, axes: int = 2, *, method: str = "multiscale", **options: Any) -> PyramidQuantizer:
    torch.manual_seed(seed)
    built = quantizers.create(method, **{"dim": DIM, "codebook_size": SIZE, "axes": axes, **options})
    assert isinstance(built, PyramidQuantizer)
    return built


def maps(seed: int, axes: int = 2, *, leading: Sequence[int] = (2,), channel_dim: int = -1) -> Tensor:
    return normal(seed, *leading, *SIZES[axes], DIM, dtype=torch.float32).movedim(-1, channel_dim)


def tokens(size: Sequence[int], quantizer: PyramidQuantizer) -> int:
    return sum(torch.Size(level).numel() for level in pyramid_sizes(size, quantizer.scales))


# The equations


@few
@given(seed=seeds, axes=st.integers(1, 3), shared=st.booleans())
def test_each_scale_quantizes_the_mean_of_what_is_left(seed: int, axes: int, shared: bool) -> None:
    """Of scales that divide the size, by the nearest interpolation: cells are blocks, all written out."""
    quantizer = pyramid(seed, axes, shared=shared, interpolation="nearest").double()
    x = normal(seed, 2, *[4] * axes, DIM)
    mask = torch.rand(x.shape[:-1], generator=torch.Generator().manual_seed(seed)) > 0.4
    out = quantizer(x, mask)
    left, value = x.where(mask[..., None], 0.0), torch.zeros_like(x)
    for part, found, block in zip(
        quantizer.components, quantizer.split(out.indices, x.shape[1:-1]), (4, 2, 1), strict=True
    ):
        count = blocks(mask[..., None].double(), block)
        mean = blocks(left, block) / count.clamp(min=1)
        expected = torch.cdist(mean, part.codebook).argmin(-1)
        assert torch.equal(found.flatten(1), expected.where(count[..., 0] > 0, -1))
        code = F.embedding(expected, part.codebook) * (count > 0)
        code = repeated(code, (4 // block,) * axes, block)
        left, value = (left - code).where(mask[..., None], 0.0), value + code
    torch.testing.assert_close(out.quantized, value.where(mask[..., None], 0.0), rtol=0, atol=0)


def blocks(grid: Tensor, block: int) -> Tensor:
    """Sums over blocks of [B, *size, C], as [B, cells, C] in row-major order."""
    axes = grid.dim() - 2
    for axis in range(1, axes + 1):
        grid = grid.unflatten(axis, (-1, block)).sum(axis + 1)
    return grid.flatten(1, axes)


def repeated(cells: Tensor, level: tuple[int, ...], block: int) -> Tensor:
    """[B, cells, C] at full size."""
    grid = cells.unflatten(1, level)
    for axis in range(1, len(level) + 1):
        grid = grid.repeat_interleave(block, axis)
    return grid


@every_axes
def test_the_finest_scale_alone_is_the_quantizer(axes: int) -> None:
    quantizer, x = pyramid(axes=axes, scales=(1.0,)), maps(0, axes)
    alone, out = quantizer.components[0], quantizer(x)
    expected = alone(x)
    assert torch.equal(out.quantized, expected.quantized)
    assert torch.equal(out.indices, expected.indices.flatten(1))
    assert torch.equal(out.loss, expected.loss)


def test_interpolation_is_pytorchs() -> None:
    """Linear without aligned corners: a map of one coarse scale, of codes that the finest cannot change."""
    coarse, fine = VectorQuantizer(DIM, SIZE), VectorQuantizer(DIM, 1)
    nn.init.zeros_(fine.embedding)
    quantizer, x = MultiScaleQuantizer(DIM, [coarse, fine], scales=(0.5, 1.0), axes=2), maps(0)
    indices = quantizer.split(quantizer.encode(x), SIZES[2])[0]
    codes = coarse.decode(indices).movedim(-1, 1)
    expected = F.interpolate(codes, size=SIZES[2], mode="bilinear", align_corners=False).movedim(1, -1)
    torch.testing.assert_close(quantizer(x).quantized, expected, rtol=0, atol=0)


@pytest.mark.parametrize("interpolation", ["linear", "nearest"])
def test_no_side_is_preferred(interpolation: str) -> None:
    """Of three cells brought to five positions: tokens in reverse order are the map in reverse order."""
    quantizer = pyramid(axes=1, scales=(0.5, 1.0), interpolation=interpolation).double()
    coarse, fine = torch.tensor([1, 2, 3]), torch.tensor([4, 5, 6, 7, 8])
    forwards = quantizer.decode(torch.cat([coarse, fine]), (5,))
    backwards = quantizer.decode(torch.cat([coarse.flip(0), fine.flip(0)]), (5,))
    # Two products and a sum with another on each side: a few roundings.
    torch.testing.assert_close(backwards.flip(0), forwards, rtol=0, atol=16 * EPS)


@few
@given(seed=seeds)
def test_a_scale_several_times_is_a_residual_quantizer(seed: int) -> None:
    """Of the full size: each time it quantizes what the time before left."""
    torch.manual_seed(seed)
    parts, x = [VectorQuantizer(DIM, SIZE) for _ in range(3)], maps(seed)
    scales = MultiScaleQuantizer(DIM, parts, scales=(1.0, 1.0, 1.0), axes=2)
    residual = quantizers.ResidualQuantizer(DIM, parts)
    quantized, indices, _ = scales(x)
    expected, stages, _ = residual(x)
    assert torch.equal(torch.stack(scales.split(indices, x.shape[1:3]), -1), stages)
    # The values are sums of three codes in one order or another, and x plus what is missing to them.
    bound = 8 * torch.finfo(torch.float32).eps * (x.abs().max() + sum(part.codebook.abs().max() for part in parts))
    assert (quantized - expected).abs().max() <= bound


def test_split_gives_a_map_for_each_scale() -> None:
    """VAR's scales of 16 × 16 have 680 tokens; the order is that of the indices."""
    sides = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
    quantizer = pyramid(scales=[n / 16 for n in sides])
    indices = quantizer.encode(torch.randn(2, 16, 16, DIM))
    assert indices.shape == (2, 680)
    found = quantizer.split(indices, (16, 16))
    assert [tuple(level.shape) for level in found] == [(2, n, n) for n in sides]
    assert torch.equal(torch.cat([level.flatten(1) for level in found], -1), indices)
    assert [tuple(level.shape) for level in pyramid(axes=1).split(torch.arange(1 + 3 + 5), (5,))] == [
        (1,),
        (3,),
        (5,),
    ]


@few
@given(seed=seeds)
def test_straight_through_scales_pass_the_gradient(seed: int) -> None:
    """The coarse cell passes Σ g of its positions to their mean, and the residual takes it back."""
    quantizer = pyramid(seed, interpolation="nearest").double()
    x, g = normal(seed, 1, 4, 4, DIM).requires_grad_(), normal(seed + 1, 1, 4, 4, DIM)
    (found,) = torch.autograd.grad((quantizer(x).quantized * g).sum(), x)
    torch.testing.assert_close(found, g, rtol=0, atol=64 * EPS)


def test_the_error_falls_with_each_scale_on_a_fitted_codebook() -> None:
    """Averages follow the residuals of smooth maps: then the decoded prefixes come nearer."""
    quantizer = pyramid(quantizer="ema_vq", decay=0.5, shared=False, codebook_size=32)
    smooth = F.interpolate(torch.randn(32, DIM, 3, 3), size=(8, 8), mode="bilinear").movedim(1, -1)
    for _ in range(15):
        quantizer(smooth)
    levels = quantizer.eval().split(quantizer.encode(smooth), (8, 8))
    value, errors = torch.zeros_like(smooth).movedim(-1, 1), [smooth.square().mean()]
    for part, level in zip(quantizer.components, levels, strict=True):
        value = value + F.interpolate(part.decode(level).movedim(-1, 1), size=(8, 8), mode="bilinear")
        errors.append((smooth.movedim(-1, 1) - value).square().mean())
    assert all(later < 0.8 * before for before, later in itertools.pairwise(errors))


# 1, 2, 3, 4: output, decode, shapes, modes


@every_option
@every_axes
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_decode_equals_quantized(axes: int, options: dict[str, Any], training: bool) -> None:
    quantizer = pyramid(axes=axes, **options).train(training)
    x = maps(0, axes, channel_dim=quantizer.channel_dim)
    before = copy.deepcopy(quantizer)  # the codes that the forward uses
    out = quantizer(x)
    assert out.quantized.shape == x.shape
    assert out.indices.shape == (2, tokens(SIZES[axes], quantizer))
    assert (out.indices.dtype, out.loss.shape, out.loss.dtype) == (torch.int64, (), torch.float32)
    assert torch.equal(before.decode(out.indices, SIZES[axes]), out.quantized)
    assert torch.equal(before.encode(x), out.indices)
    assert torch.equal(before.train(not training)(x).loss, out.loss)


def test_decode_guesses_equal_axes() -> None:
    quantizer, x = pyramid(), torch.randn(2, 6, 6, DIM)
    out = quantizer(x)
    assert torch.equal(quantizer.decode(out.indices), out.quantized)


@pytest.mark.parametrize("leading", [(), (0,), (3,), (2, 3)], ids=str)
@every_axes
def test_leading_axes_are_free(axes: int, leading: tuple[int, ...]) -> None:
    quantizer, x = pyramid(axes=axes, quantizer="ema_vq"), maps(0, axes, leading=leading).requires_grad_()
    before = state_of(quantizer)
    out = quantizer(x)
    assert out.quantized.shape == x.shape
    assert out.indices.shape[:-1] == leading
    (out.quantized.sum() + out.loss).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    if 0 in leading:
        assert out.loss == 0
        assert_same_state(before, state_of(quantizer))
    else:
        flat = pyramid(axes=axes, quantizer="ema_vq").eval()(x.detach().reshape(-1, *SIZES[axes], DIM))
        assert torch.equal(out.indices.reshape(flat.indices.shape), flat.indices)


def test_channels_stand_on_any_axis() -> None:
    last, first, x = pyramid(), pyramid(channel_dim=1), maps(0)
    by_last, by_first = last(x), first(x.movedim(-1, 1))
    assert torch.equal(by_first.quantized, by_last.quantized.movedim(-1, 1))
    assert torch.equal(by_first.indices, by_last.indices)
    assert torch.equal(first.decode(by_first.indices, SIZES[2]), by_first.quantized)


# 5, 6: what does not count


@few
@given(seed=seeds, axes=st.integers(1, 3))
def test_garbage_under_a_mask_leaves_no_trace(seed: int, axes: int) -> None:
    x, g = maps(seed, axes), maps(seed + 1, axes)
    mask = torch.rand(x.shape[:-1], generator=torch.Generator().manual_seed(seed)) > 0.4
    hidden = ~mask[..., None].expand(x.shape)
    results = []
    for garbage in (0.0, 1e30, torch.nan, -torch.inf):
        quantizer = pyramid(0, axes, quantizer="ema_vq")
        z = x.masked_fill(hidden, garbage).requires_grad_()
        out = quantizer(z, mask)
        (gradient,) = torch.autograd.grad(out.loss + (out.quantized * g).sum(), z)
        results.append([*out, gradient, quantizer.encode(z, mask), *state_of(quantizer).values()])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)
    quantized, indices, _, gradient, *_ = results[0]
    assert (quantized[hidden] == 0).all()
    assert (gradient[hidden] == 0).all()
    finest = quantizer.split(indices, SIZES[axes])[-1]
    assert torch.equal(finest >= 0, mask)


def test_a_cell_without_a_vector_has_no_token() -> None:
    quantizer, x = pyramid(axes=1), maps(0, 1, leading=(1,))  # 8 positions, cells of 4, 2 and 1
    mask = torch.tensor([[False] * 4 + [True] * 3 + [False]])
    coarse, middle, fine = quantizer.split(quantizer(x, mask).indices, (8,))
    for level, expected in ((coarse, [0, 1]), (middle, [0, 0, 1, 1]), (fine, mask[0].tolist())):
        assert (level[0] >= 0).tolist() == list(map(bool, expected))
    out = quantizer(x, torch.zeros_like(mask))
    assert (out.indices == -1).all()
    assert (out.quantized == 0).all()
    assert out.loss == 0


def test_the_loss_is_of_cells_that_count() -> None:
    quantizer, x = pyramid(axes=1), maps(0, 1, leading=(2,))
    mask = torch.tensor([True, False])[:, None].expand(2, 8)
    torch.testing.assert_close(quantizer(x, mask).loss, quantizer(x[:1]).loss)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_vector_that_is_not_finite_is_as_masked_and_says_so(value: float) -> None:
    x, mask = maps(0), torch.ones(2, *SIZES[2], dtype=torch.bool)
    mask[0, 1, 2] = False
    quantizer, masked = pyramid(quantizer="ema_vq"), pyramid(quantizer="ema_vq")
    bad = x.clone()
    bad[0, 1, 2, 1] = value
    out, expected = quantizer(bad), masked(x, mask)
    assert torch.equal(out.indices, expected.indices)
    assert torch.equal(out.loss, expected.loss)
    assert torch.equal(out.quantized.isnan().all(-1), ~mask)
    assert torch.equal(out.quantized.nan_to_num(), expected.quantized)
    assert_same_state(state_of(quantizer), state_of(masked))
    untouched = pyramid(quantizer="ema_vq")
    before = state_of(untouched)
    assert (untouched(torch.full_like(x, value)).indices == -1).all()
    assert_same_state(before, state_of(untouched))


def test_decode_of_no_code_is_zero() -> None:
    quantizer = pyramid()
    assert (quantizer.decode(torch.full((2, 4 + 16 + 64), -1), (8, 8)) == 0).all()


# State


@few
@given(seed=seeds)
def test_a_shared_codebook_averages_once_over_all_scales(seed: int) -> None:
    quantizer = pyramid(seed, quantizer="ema_vq", decay=0.75, axes=1, interpolation="nearest").double()
    (part,) = quantizer.quantizers
    before, x = copy.deepcopy(part), normal(seed, 2, 8, DIM)
    left, vectors, chosen = x, [], []
    for block in (4, 2, 1):
        vectors.append(blocks(left, block) / block)
        chosen.append(torch.cdist(vectors[-1], before.codebook).argmin(-1))
        left = left - before.codebook[chosen[-1]].repeat_interleave(block, 1)
    one_hot = F.one_hot(torch.cat(chosen, 1).flatten(), SIZE).double()
    quantizer(x)
    size = 0.75 * before.cluster_size + 0.25 * one_hot.sum(0)
    total = 0.75 * before.embedding_sum + 0.25 * one_hot.T @ torch.cat(vectors, 1).flatten(0, 1)
    torch.testing.assert_close(part.cluster_size, size, rtol=64 * EPS, atol=64 * EPS)
    torch.testing.assert_close(part.embedding_sum, total, rtol=64 * EPS, atol=64 * EPS)
    assert sum("cluster_size" in name for name in quantizer.state_dict()) == 1


def test_evaluation_changes_nothing() -> None:
    quantizer, x = pyramid(quantizer="ema_vq").eval(), maps(0)
    before = state_of(quantizer)
    quantizer(x)
    quantizer.train().encode(x)
    assert_same_state(before, state_of(quantizer))
    quantizer(x)
    assert not torch.equal(before["quantizers.0.embedding"], state_of(quantizer)["quantizers.0.embedding"])


@every_option
def test_a_copy_and_a_checkpoint_go_on_alike(options: dict[str, Any]) -> None:
    quantizer = pyramid(**options)
    x = maps(0, channel_dim=quantizer.channel_dim)
    quantizer(x)
    loaded = pyramid(1, **options)
    file = io.BytesIO()
    torch.save(quantizer.state_dict(), file)
    file.seek(0)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    with torch.device("meta"):
        meta = pyramid(1, **options)
    meta = meta.to_empty(device="cpu")
    for module in meta.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    meta.load_state_dict(quantizer.state_dict())
    others = [loaded, meta, copy.deepcopy(quantizer), pickle.loads(pickle.dumps(quantizer))]
    expected = quantizer(x)
    for other in others:
        out = other(x)
        assert torch.equal(out.indices, expected.indices)
        assert torch.equal(out.quantized, expected.quantized)
        assert_same_state(state_of(other), state_of(quantizer))


# 8: precision


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_output_has_xs_dtype_and_the_arithmetic_its_own(dtype: torch.dtype) -> None:
    quantizer, x = pyramid().eval(), maps(0).to(dtype)
    out = quantizer.to(dtype)(x)
    assert out.quantized.dtype == dtype
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert out.loss.dtype == wide
    assert {parameter.dtype for parameter in quantizer.parameters()} == {wide}
    expected = quantizer(x.to(wide))
    assert torch.equal(out.indices, expected.indices)
    assert torch.equal(out.quantized, expected.quantized.to(dtype))


def test_autocast_changes_nothing() -> None:
    quantizer, x = pyramid(code_dim=2, blends=[nn.Conv2d(2, 2, 3, padding=1)]), maps(0)
    expected = quantizer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = quantizer(x)
        decoded = quantizer.decode(out.indices, SIZES[2])
        assert torch.equal(quantizer.encode(x), out.indices)
    for a, b in zip(out, expected, strict=True):
        assert torch.equal(a, b)
    assert torch.equal(decoded, expected.quantized)  # the same products of the same shapes


def test_blend_stands_behind_the_interpolation() -> None:
    """It sees each scale's codes at full size; here it doubles them, and learns."""
    blend = nn.Conv2d(DIM, DIM, 1, bias=False)
    quantizer, x = pyramid(scales=(0.5, 1.0), interpolation="nearest", blends=[blend]), maps(0)
    with torch.no_grad():
        blend.weight.copy_(2 * torch.eye(DIM)[..., None, None])
    out = quantizer(x)
    assert torch.equal(quantizer.decode(out.indices, SIZES[2]), out.quantized)
    coarse, fine = quantizer.split(out.indices, SIZES[2])
    codes = quantizer.components[0].codebook
    wide = codes[coarse].repeat_interleave(2, 1).repeat_interleave(2, 2)
    torch.testing.assert_close(out.quantized, 2 * wide + 2 * codes[fine], rtol=1e-6, atol=1e-6)
    assert torch.equal(fine, torch.cdist(x - 2 * wide, codes).argmin(-1))
    out.quantized.sum().backward()
    assert blend.weight.grad is not None
    assert blend.weight.grad.abs().max() > 0


# 9: graphs


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("method", ["multiscale", "var"])
def test_one_graph_computes_what_eager_mode_does(method: str) -> None:
    """Of two scales by the nearest interpolation, which a graph computes bit for bit."""
    counter = CompileCounterWithBackend("aot_eager")
    options: dict[str, Any] = {"quantizer": "ema_vq", "scales": (0.5, 1.0), "interpolation": "nearest"}
    quantizer = pyramid(axes=1, method=method, **options)
    eager = copy.deepcopy(quantizer)
    compiled = torch.compile(quantizer, fullgraph=True, backend=counter)
    for seed, count in enumerate((2, 3, 5)):
        x, z = (maps(seed, 1, leading=(count,)).requires_grad_() for _ in range(2))
        torch._dynamo.mark_dynamic(x, 0)
        out, expected = compiled(x), eager(z)
        for a, b in zip(out, expected, strict=True):
            assert torch.equal(a, b)
        (out.quantized.square().sum() + out.loss).backward()
        (expected.quantized.square().sum() + expected.loss).backward()
        torch.testing.assert_close(x.grad, z.grad)
    assert counter.frame_count == 1
    assert_same_state(state_of(quantizer), state_of(eager))


@every_axes
@pytest.mark.parametrize("method", ["multiscale", "var"])
@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning")
def test_forward_exports_for_any_batch(method: str, axes: int) -> None:
    quantizer = pyramid(axes=axes, method=method).eval()
    if TORCH < (2, 6) and (method, axes) == ("var", 1):
        pytest.skip("torch 2.6 is the first whose exports of 1-D convolutions keep reshape")
    sizes = torch.export.Dim("batch", max=2**16)  # before torch 2.7, sizes that may overflow are an error
    program = torch.export.export(quantizer, (maps(0, axes),), dynamic_shapes=[{0: sizes}])
    x = maps(1, axes, leading=(5,))
    x.flatten()[7] = torch.nan
    for a, b in zip(program.module()(x), quantizer(x), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


# 12: errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scales": ()}, r"scales are \(\), expected"),
        ({"scales": (0.5,)}, r"scales are \(0.5,\), expected numbers above 0 that rise to 1"),
        ({"scales": (0.5, 0.25, 1.0)}, "expected numbers above 0 that rise to 1"),
        ({"scales": (0.0, 1.0)}, "expected numbers above 0 that rise to 1"),
        ({"scales": (float("nan"), 1.0)}, "expected numbers above 0 that rise to 1"),
        ({"axes": 4}, "axes is 4, expected 1, 2 or 3"),
        ({"interpolation": "area"}, "interpolation is 'area', expected 'cubic', 'linear' or 'nearest'"),
        ({"quantizer": "residual"}, "quantizers contain one with several codebooks"),
        ({"quantizer": "multiscale"}, "MultiScaleQuantizer, which quantizes maps"),
    ],
)
def test_options_that_do_not_fit_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pyramid(**options)


def test_parts_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="got 1 quantizers for 2 scales; expected one per scale"):
        MultiScaleQuantizer(DIM, [VectorQuantizer(DIM, 4)], scales=(0.5, 1.0), axes=1)
    with pytest.raises(ValueError, match=r"quantizers have dims \[2, 3\], expected one dim"):
        MultiScaleQuantizer(DIM, [VectorQuantizer(2, 4), VectorQuantizer(3, 4)], scales=(0.5, 1.0), axes=1)
    with pytest.raises(TypeError, match=r"quantizers\[0\] is Linear.*expected a Quantizer"):
        MultiScaleQuantizer(DIM, [nn.Linear(DIM, DIM)], scales=(1.0,), axes=1)  # type: ignore[list-item]


@pytest.mark.parametrize("call", ["forward", "encode"])
def test_x_that_does_not_fit_is_named(call: str) -> None:
    quantizer = pyramid()
    run = quantizer if call == "forward" else quantizer.encode
    with pytest.raises(ValueError, match="x has 1 axes beside its channels, expected at least 2"):
        run(torch.zeros(4, DIM))
    with pytest.raises(ValueError, match="expected dim=3"):
        run(torch.zeros(2, 4, 4, 5))
    with pytest.raises(ValueError, match=r"x has size \(4, 0\), expected at least 1 on each axis"):
        run(torch.zeros(2, 4, 0, DIM))
    with pytest.raises(ValueError, match="mask has shape"):
        run(torch.zeros(2, 4, 4, DIM), torch.ones(2, 4, dtype=torch.bool))


def test_indices_that_do_not_fit_are_named() -> None:
    quantizer = pyramid()  # of 8 × 8 there are 4 + 16 + 64 tokens
    indices = torch.zeros(2, 84, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"indices have 84 tokens, expected \d+ for size \(8, 6\)"):
        quantizer.decode(indices, (8, 6))
    for size in ((8,), (8, 8, 8), (8, 0)):
        with pytest.raises(ValueError, match="size is"):
            quantizer.decode(indices, size)
    with pytest.raises(ValueError, match="indices have 83 tokens, which no size of 2 equal axes has"):
        quantizer.decode(indices[:, 1:])
    with pytest.raises(ValueError, match=r"indices have shape \(\), expected"):
        quantizer.decode(torch.tensor(0))
    for bad in (SIZE, -2):
        with pytest.raises(IndexError, match=f"expected 0 to {SIZE - 1}"):
            quantizer.decode(indices + bad)
    with pytest.raises(TypeError, match=r"indices have dtype torch\.float32"):
        quantizer.decode(indices.float())


def test_scales_of_different_codebooks_each_know_their_own() -> None:
    parts = [EMAVectorQuantizer(DIM, 50), VectorQuantizer(DIM, 4)]
    quantizer, x = MultiScaleQuantizer(DIM, parts, scales=(0.5, 1.0), axes=1).eval(), maps(0, 1)
    out = quantizer(x)
    assert torch.equal(quantizer.decode(out.indices), out.quantized)
    quantizer.decode(torch.tensor([49] * 4 + [3] * 8))
    for bad, size in (([50] * 4 + [3] * 8, 50), ([49] * 4 + [4] * 8, 4)):
        with pytest.raises(IndexError, match=f"expected 0 to {size - 1}"):
            quantizer.decode(torch.tensor(bad))


def test_scales_that_are_equal_on_a_small_map_learn() -> None:
    """Half of one position is one position: the averages move by the vectors of both."""
    part = EMAVectorQuantizer(DIM, 4)
    quantizer = MultiScaleQuantizer(DIM, [part] * 2, scales=(0.5, 1.0), axes=1)
    before = part.codebook.clone()
    assert quantizer(torch.randn(3, 1, DIM)).indices.shape == (3, 2)
    assert not torch.equal(part.codebook, before)
