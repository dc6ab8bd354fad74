"""VectorQuantize of vector-quantize-pytorch with several heads, and FSQ and LFQ with several codebooks."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from quantizers import plug_in, take_codebook
from quantizers.serialization.configuration import configuration, rebuild
from tests.adapters.vector_quantize_pytorch.package import (
    CODES,
    EPS,
    WIDTH,
    made,
    normal,
    package,
    same_rows,
    trained,
)

HEADS = (
    {"heads": 2, "codebook_dim": 4, "separate_codebook_per_head": True},
    {"heads": 2, "codebook_dim": 4},
    {"heads": 3, "codebook_dim": 4, "separate_codebook_per_head": True},  # 12 channels of 8, by a projection
    {"heads": 3, "codebook_dim": 4, "use_cosine_sim": True},
)


@pytest.mark.parametrize("method", ["vq", "ema_vq", "rotation_vq", "multihead"])
@pytest.mark.parametrize("options", HEADS)
def test_heads_keep_codes_and_values(options: dict[str, Any], method: str) -> None:
    original, x = trained("VectorQuantize", **options), normal(2, 60, WIDTH)
    model = nn.Sequential(copy.deepcopy(original)).eval()
    separate = options.get("separate_codebook_per_head", False)
    if method == "multihead" and not separate:
        with pytest.raises(ValueError, match=f"expected a GroupedQuantizer of {options['heads']} groups"):
            plug_in(model, method, keep_codebook=True)
        return
    codebook = take_codebook(model)
    assert torch.equal(codebook, original.codebook)
    plug_in(model, method, keep_codebook=True)
    (reference, indices, _), (new, found, _) = original(x), model(x)
    heads, z = options["heads"], original.project_in(x).unflatten(-1, (options["heads"], 4))
    z = nn.functional.normalize(z, dim=-1) if options.get("use_cosine_sim") else z
    same = torch.stack(
        [
            same_rows(
                found[..., head], indices[..., head], z[..., head, :], codebook[head] if separate else codebook
            )
            for head in range(heads)
        ],
        -1,
    ).all(-1)
    assert same.float().mean() > 0.9
    scale = 1 + (original.project_out.weight.abs().sum(-1) if original.has_projections else 0)
    assert ((new - reference).abs() <= 16 * EPS * codebook.abs().max() * scale)[same].all()
    assert torch.equal(model[0].get_output_from_indices(found), new)
    codes = model[0].get_codes_from_indices(found)
    assert codes.shape == (2, 60, heads * 4)
    torch.testing.assert_close(
        original.project_out(codes), reference.where(same[..., None], original.project_out(codes))
    )
    torch.testing.assert_close(model[0].codebook, codebook)
    rebuilt = rebuild(configuration(model[0].quantizer))
    rebuilt.load_state_dict(model[0].quantizer.state_dict())
    assert torch.equal(rebuilt.encode(x), found)


@pytest.mark.parametrize("separate", [False, True])
def test_averages_of_heads_move_alike(separate: bool) -> None:
    options = {"heads": 2, "codebook_dim": 4, "separate_codebook_per_head": separate}
    original = trained("VectorQuantize", **options)
    model = plug_in(nn.Sequential(copy.deepcopy(original)), "ema_vq", keep_codebook=True)
    x = normal(2, 60, WIDTH)
    losses, gradients = [], []
    for module in (original.train(), model.train()):
        given = x.clone().requires_grad_()
        quantized, _, loss = module(given)
        (quantized.square().sum() + loss).backward()
        losses.append(loss.detach())
        gradients.append(given.grad)
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*gradients)
    torch.testing.assert_close(model[0].codebook, original.codebook)
    parts = model[0].quantizer.quantizers
    sizes = torch.stack([part.cluster_size for part in parts])
    torch.testing.assert_close(sizes, original._codebook.cluster_size)


@pytest.mark.parametrize("method", ["vq", "fsq", "multihead", "residual"])
def test_a_new_quantizer_for_each_head(method: str) -> None:
    """In the layout of an image, with a projection to the heads."""
    options = {"heads": 4, "codebook_dim": 3, "separate_codebook_per_head": True, "accept_image_fmap": True}
    original, x = made("VectorQuantize", **options), normal(2, WIDTH, 3, 5)
    model = plug_in(nn.Sequential(original), method)
    quantized, indices, _ = model(x)
    assert quantized.shape == x.shape
    codebooks = 4 * 4 if method == "residual" else 4
    assert indices.shape == (2, 3, 5, codebooks)
    torch.testing.assert_close(model[0].get_output_from_indices(indices), quantized)
    assert model[0].get_codes_from_indices(indices).shape == (2, 12, 3, 5)


def test_heads_that_share_their_codes() -> None:
    original = made("VectorQuantize", heads=2, codebook_dim=4)
    model = plug_in(nn.Sequential(original), "vq")
    assert len(model[0].quantizer.quantizers) == 1
    codes = normal(CODES, 4)
    model[0].codebook = codes
    assert torch.equal(model[0].codebook, codes)
    assert len(plug_in(nn.Sequential(original), "vq", shared=False)[0].quantizer.quantizers) == 2
    separate = made("VectorQuantize", heads=2, codebook_dim=4, separate_codebook_per_head=True)
    with pytest.raises(ValueError, match="shares its codebook; expected 2 codebooks"):
        plug_in(nn.Sequential(separate), "vq", shared=True, keep_codebook=True)


def test_masked_heads_have_no_code() -> None:
    model = plug_in(nn.Sequential(made("VectorQuantize", heads=2, codebook_dim=4)), "vq")
    x, mask = normal(2, 6, WIDTH), torch.arange(6) < torch.tensor([[4], [6]])
    quantized, indices, _ = model[0](x, mask=mask)
    assert (indices[0, 4:] == -1).all()
    assert (quantized[0, 4:] == 0).all()
    assert torch.equal(model[0].get_output_from_indices(indices), quantized)
    assert (model[0].get_codes_from_indices(indices)[0, 4:] == 0).all()
    single = plug_in(nn.Sequential(made("VectorQuantize")), "vq")[0]
    assert (single.get_codes_from_indices(torch.tensor([-1, 2]))[0] == 0).all()


def test_codebooks_of_fsq_are_kept() -> None:
    torch.manual_seed(0)
    for dim in (6, WIDTH):
        original = package.FSQ([5, 4, 3], dim=dim, num_codebooks=2).eval()
        model = plug_in(nn.Sequential(original), "fsq", keep_codebook=True)
        for x in (normal(2, 60, dim), normal(2, dim, 4, 5)):
            (new, found), (reference, indices) = model(x), original(x)
            assert torch.equal(found, indices.long())
            torch.testing.assert_close(new, reference)
            assert torch.equal(model[0].indices_to_codes(found), new)
        assert torch.equal(model[0].implicit_codebook, original.implicit_codebook)
        codes = original.implicit_codebook
        assert torch.equal(model[0].codes_to_indices(codes), torch.arange(60))
    with pytest.raises(ValueError, match="expected a GroupedQuantizer of 2 groups"):
        plug_in(nn.Sequential(original), "grouped", quantizer="fsq", num_groups=1, keep_codebook=True)


@pytest.mark.parametrize("dim", [8, 16])
def test_codebooks_of_lfq_have_its_values(dim: int) -> None:
    """LFQ has no codes to copy; without a projection there is nothing else, and a bit is a channel's sign."""
    original = package.LFQ(codebook_size=16, dim=dim, num_codebooks=2).eval()
    model = plug_in(nn.Sequential(original), "lfq").eval()
    for x in (normal(2, 60, dim), normal(2, dim, 4, 5)):
        (new, found, _), (reference, indices, _) = model(x), original(x)
        assert new.shape == reference.shape
        assert found.shape == indices.shape
        assert torch.equal(model[0].indices_to_codes(found), new)
        if dim == 8:
            assert torch.equal(new, reference)
            bits = sum((found >> place & 1) << (3 - place) for place in range(4))
            assert torch.equal(bits, indices)
    with pytest.raises(ValueError, match="has no table of codes"):
        plug_in(nn.Sequential(original), "lfq", keep_codebook=True)


def test_one_head_with_codes_of_its_own() -> None:
    original, x = trained("VectorQuantize", separate_codebook_per_head=True), normal(2, 60, WIDTH)
    adapter = plug_in(copy.deepcopy(original), "vq", keep_codebook=True)
    assert torch.equal(adapter.codebook, original.codebook)
    assert torch.equal(adapter(x)[1], original(x)[1])
    codes = normal(1, CODES, WIDTH)
    adapter.codebook = codes
    assert torch.equal(adapter.codebook, codes)


@pytest.mark.parametrize("count", [1, 3])
def test_random_projections_by_the_heads_in_them(count: int) -> None:
    """The quantizer inside a RandomProjectionQuantizer is replaced; it gives the same targets."""
    torch.manual_seed(0)
    options = {"dim": WIDTH, "codebook_size": CODES, "codebook_dim": 4, "num_codebooks": count}
    original, x = package.RandomProjectionQuantizer(**options), normal(2, 60, WIDTH)
    model = plug_in(copy.deepcopy(original), "vq", keep_codebook=True)
    same = model(x) == original(x)
    assert same.shape == original(x).shape
    assert same.float().mean() > 0.99
    with pytest.raises(ValueError, match="forward has indices=a Tensor"):
        model(x, indices=original(x))
