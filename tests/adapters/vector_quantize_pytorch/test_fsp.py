"""FSP and ResidualLFQ of vector-quantize-pytorch."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from quantizers import create, plug_in, take_codebook
from quantizers.serialization.configuration import configuration, rebuild
from tests.adapters.vector_quantize_pytorch.package import EPS, normal, package


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(2, 9), min_size=1, max_size=4),
    st.sampled_from([None, 6]),
    st.sampled_from(["tanh", "sigmoid", "normal"]),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_fsp_keeps_codes_and_projections(
    levels: list[int], dim: int | None, cdf: str, bias: bool, seed: int
) -> None:
    """Indices are the same where no channel is within rounding of the edge between two levels."""
    torch.manual_seed(seed)
    original = package.FSP(levels, dim=dim, act_name=cdf, projection_has_bias=bias).eval()
    model = plug_in(nn.Sequential(original), "fsp", keep_codebook=True)
    assert model[0].quantizer.level_counts == tuple(levels)
    x = 2 * torch.randn(2, 50, original.dim)
    (new, found, loss, _), (reference, indices, expected, _) = model(x), original(x)
    torch.testing.assert_close(loss, expected)
    z = original.project_in(x)
    counts = torch.tensor(levels)
    places = original.act_func(z).double() * counts
    nearest = places.round().clamp(min=1).minimum(counts - 1)  # of the edges between two levels
    size = z.abs() + x.abs().sum(-1, keepdim=True)
    clear = ((places - nearest).abs() > 16 * max(levels) * EPS * (1 + size)).all(-1)
    assert clear.float().mean() > 0.9
    assert torch.equal(found[clear], indices[clear])
    assert found.dtype == indices.dtype
    torch.testing.assert_close(new[clear], reference[clear])
    every = torch.arange(math.prod(levels))
    torch.testing.assert_close(model[0].indices_to_codes(every), original.indices_to_codes(every))
    torch.testing.assert_close(model[0].indices_to_codes(found), new)
    torch.testing.assert_close(take_codebook(nn.Sequential(original)), model[0].codebook)


def test_levels_of_channels_and_their_index_are_the_originals() -> None:
    original = package.FSP([8, 5, 3])
    adapter = plug_in(original, "fsp")
    every = torch.arange(120)
    levels = original.indices_to_level_indices(every)
    assert torch.equal(adapter.indices_to_level_indices(every), levels)
    assert torch.equal(adapter.level_indices_to_indices(levels), original.level_indices_to_indices(levels))
    x = normal(2, 5, 3)
    (_, found, _, info), (_, _, _, reference) = adapter(x), original(x)
    assert torch.equal(info["level_indices"], reference["level_indices"].long())
    assert torch.equal(original.level_indices_to_indices(info["level_indices"]), found)
    for name, value in reference["norm_info"].items():
        torch.testing.assert_close(info["norm_info"][name], value)
    with pytest.raises(ValueError, match="VectorQuantizer, which has no levels; expected 'fsp'"):
        plug_in(original, "vq").indices_to_level_indices(every)


@pytest.mark.parametrize("rate", [0.0, 1.0])
@pytest.mark.parametrize("dim", [None, 6])
def test_fsp_trains_alike(dim: int | None, rate: float) -> None:
    """Without noise the outputs and gradients are the original's; with it the values leave the codes."""
    torch.manual_seed(0)
    original = package.FSP([8, 5, 3], dim=dim, quantize_rate=rate)
    adapter = plug_in(nn.Sequential(original), "fsp", keep_codebook=True)[0]
    x, gradients, outputs = normal(2, 40, original.dim), [], []
    for module in (original, adapter):
        given = x.clone().requires_grad_()
        quantized, _, loss, _ = module(given)
        (quantized.square().sum() + loss).backward()
        gradients.append(given.grad)
        outputs.append(quantized)
    assert adapter.quantizer.quantize_probability == rate
    if rate == 1:
        torch.testing.assert_close(*outputs)
        torch.testing.assert_close(*gradients)
    else:
        assert not torch.equal(*outputs)
        assert (adapter.eval()(x)[0] - outputs[1]).abs().max() > 0.01


def test_maps_masks_and_other_quantizers_in_the_place_of_fsp() -> None:
    original = package.FSP([8, 5, 3], channel_first=True, vector_norm="none")
    x = normal(2, 3, 4, 5)
    for method in ("fsp", "vq", "fsq"):
        adapter = plug_in(nn.Sequential(original), method)[0].eval()
        quantized, indices, loss, info = adapter(x)
        assert (quantized.shape, indices.shape, loss.shape) == (x.shape, (2, 4, 5), ())
        assert torch.equal(adapter.indices_to_codes(indices), quantized)
        assert bool(info) == (method == "fsp")
        assert (adapter.indices_to_codes(torch.full((1, 2, 2), -1)) == 0).all()
    x[0, :, 0, 0] = torch.nan
    quantized, indices, _, _ = plug_in(nn.Sequential(original), "fsp")(x)
    assert quantized[0, :, 0, 0].isnan().all()
    assert indices[0, 0, 0] == -1
    assert not quantized[1].isnan().any()
    large = plug_in(nn.Sequential(original), "fsq", levels=(2**16, 2**16))[0]
    assert large(x)[1].dtype == torch.int64


def test_a_reloaded_fsp_gives_the_same() -> None:
    adapter = plug_in(nn.Sequential(package.FSP([8, 5, 3], dim=6)), "fsp", keep_codebook=True)[0]
    rebuilt = rebuild(configuration(adapter.quantizer))
    rebuilt.load_state_dict(adapter.quantizer.state_dict())
    x = normal(2, 5, 6)
    assert torch.equal(rebuilt.eval()(x).quantized, adapter.quantizer.eval()(x).quantized)


@pytest.mark.parametrize(
    ("options", "method", "own", "named"),
    [
        ({"need_inv_act": True}, "fsp", {}, "need_inv_act=True"),
        ({"act_name": "laplace"}, "fsp", {}, "act_name='laplace'"),
        ({}, "fsp", {"levels": (5, 3, 8)}, "expected 'fsp' with these levels and this CDF"),
        ({}, "fsp", {"cdf": "normal"}, "expected 'fsp' with these levels and this CDF"),
        ({}, "vq", {}, "VectorQuantizer with no levels"),
    ],
)
def test_states_of_fsp_that_cannot_be_kept(
    options: dict[str, Any], method: str, own: dict[str, Any], named: str
) -> None:
    model = nn.Sequential(package.FSP([8, 5, 3], **options))
    with pytest.raises(ValueError, match=named):
        plug_in(model, method, keep_codebook=True, **own)
    assert plug_in(model, method, **own)(normal(2, 5, 3))[0].shape == (2, 5, 3)
    with pytest.raises(ValueError, match="forward has eps="):
        model[0](normal(2, 5, 3), eps=0.1)


@pytest.mark.parametrize("shape", [(2, 60, 4), (2, 4, 3, 5)])
@pytest.mark.parametrize("spherical", [False, True])
def test_residual_lfq_has_the_originals_values(spherical: bool, shape: tuple[int, ...]) -> None:
    """Without a projection. The bits of an index are in the other order."""
    original = package.ResidualLFQ(dim=4, codebook_size=16, num_quantizers=3, spherical=spherical).eval()
    model = plug_in(nn.Sequential(original), "bsq" if spherical else "lfq").eval()
    x = normal(*shape)
    (new, found, losses), (reference, indices, expected) = model(x), original(x)
    bits = sum((found >> place & 1) << (3 - place) for place in range(4))
    same = (bits == indices).all(-1)
    assert same.float().mean() > 0.99
    assert losses.shape == expected.shape
    torch.testing.assert_close(
        *(values.movedim(1, -1)[same] if len(shape) > 3 else values[same] for values in (new, reference))
    )
    decoded = model[0].get_output_from_indices(found)
    torch.testing.assert_close(decoded.movedim(-1, 1) if len(shape) > 3 else decoded, new)
    codes = model[0].get_codes_from_indices(found)
    assert codes.shape == original.get_codes_from_indices(indices).shape
    torch.testing.assert_close(codes.sum(0), decoded)


@pytest.mark.parametrize("method", ["lfq", "vq", "fsq", "residual", "bsq"])
def test_new_quantizers_in_the_place_of_residual_lfq(method: str) -> None:
    original = package.ResidualLFQ(dim=6, codebook_size=16, num_quantizers=3, quantize_dropout=True)
    model, x = plug_in(nn.Sequential(original), method), normal(2, 60, 6)
    quantized, indices, losses, codes = model[0](x, return_all_codes=True)
    reference = original(x, return_all_codes=True)
    shapes = [(2, 60, 6), (2, 60, 3), (3,)]
    assert [tuple(part.shape) for part in (quantized, indices, losses)] == shapes
    assert [tuple(part.shape) for part in reference[:3]] == shapes
    assert len(codes) == 3
    assert model[0].quantizer.dropout == 1.0
    torch.testing.assert_close(model[0].get_output_from_indices(indices), quantized)
    scaled = model[0].quantizer.log_scales is not None
    assert scaled == (method in ("lfq", "bsq", "fsq"))
    mask = torch.arange(60) < torch.tensor([[40], [60]])
    assert (model[0](x, mask=mask)[1][0, 40:] == -1).all()


def test_settings_of_residual_lfq_that_are_not_kept() -> None:
    original = package.ResidualLFQ(dim=8, codebook_size=16, num_quantizers=2)
    with pytest.raises(ValueError, match="has no table of codes"):
        plug_in(nn.Sequential(original), "lfq", keep_codebook=True)
    original.layers[0].num_codebooks = 2
    with pytest.raises(ValueError, match="ResidualLFQ has num_codebooks=2"):
        plug_in(nn.Sequential(original), "lfq")


def test_fsp_takes_the_place_of_a_module_without_a_loss() -> None:
    model = nn.Sequential(nn.Identity())
    plug_in(model, create("fsp", dim=6, levels=[5, 4]), at="0", contract="vector_quantize_pytorch_fsp")
    _, _, loss, info = model(normal(2, 5, 6))
    assert loss == 0
    assert list(info) == ["level_indices"]
