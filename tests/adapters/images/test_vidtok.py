"""The AutoencoderVidTok of diffusers, whose FSQ has videos as input."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quantizers import plug_in, take_codebook
from quantizers.adapters import from_pretrained
from quantizers.adapters.recognition import contract_of
from quantizers.kernels.levels.bound import bound_levels
from tests.adapters.common import METHODS, check_unplugs, loss_falls

module = pytest.importorskip(
    "diffusers.models.autoencoders.autoencoder_vidtok", reason="the extra `models` has it"
)
FSQRegularizer: Any = module.FSQRegularizer
WIDTH, FRAMES, SIDE = 2, 2, 4
EPS = torch.finfo(torch.float32).eps


def build() -> Any:
    torch.manual_seed(0)
    return module.AutoencoderVidTok(
        ch=32,
        ch_mult=[1, 1],
        z_channels=WIDTH,
        double_z=False,
        num_res_blocks=1,
        spatial_ds=[0],
        spatial_us=[1],
        tempo_ds=[0],
        tempo_us=[1],
        regularizer="fsq",
        codebook_size=8**WIDTH,
    )


def quantizer() -> nn.Module:
    torch.manual_seed(0)
    return FSQRegularizer(levels=[8] * WIDTH)


ORIGINALS: dict[str, Callable[[], nn.Module]] = {"vidtok": quantizer}


def video() -> Tensor:
    """Frames of four coloured tiles, [1, 3, 5, 8, 8]."""
    colours = torch.rand(1, 3, 5, 2, 2, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return colours.repeat_interleave(SIDE, -1).repeat_interleave(SIDE, -2)


def latents(*shape: int, seed: int = 2) -> Tensor:
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", METHODS)
def test_trains_encodes_and_decodes(name: str) -> None:
    """By the loop that the adapter's docstring gives."""
    model, x = build(), video()
    assert plug_in(model, name) is model

    def losses() -> tuple[Tensor, Tensor]:
        return F.mse_loss(model(x).sample, x), model.regularization.loss

    loss_falls(model, losses, rate=1e-3)
    model.eval()
    quantized, indices = model.encode(x)
    assert quantized.shape == (1, WIDTH, FRAMES, SIDE, SIDE)
    assert indices.shape == (1, FRAMES, SIDE, SIDE)
    torch.testing.assert_close(model.indices_to_latent(indices), quantized)
    decoded = model.decode(indices, decode_from_indices=True)
    torch.testing.assert_close(decoded, model.decode(quantized))


def test_codes_of_other_channels_are_projected_once() -> None:
    model, x = plug_in(build(), "fsq", levels=(8, 5, 5)).eval(), video()
    quantized, indices = model.encode(x)
    torch.testing.assert_close(model.indices_to_latent(indices), quantized)
    with pytest.raises(ValueError, match="project_out is False, which this contract does not support"):
        model.regularization.indices_to_codes(indices, project_out=False)
    plain = plug_in(build(), "fsq").regularization
    assert torch.equal(
        plain.indices_to_codes(indices % 64, project_out=False), plain.indices_to_codes(indices % 64)
    )


def test_tiles_are_decoded_as_a_whole_video_is() -> None:
    model, x = plug_in(build(), "vq").eval(), video()
    _, indices = model.encode(x)
    torch.testing.assert_close(model.tile_indices_to_latent(indices), model.indices_to_latent(indices))


def is_clear(module: Any, x: Tensor) -> Tensor:
    """Which vectors [..., D] have each channel farther from an edge between two levels than rounding may carry it:
    a bounded channel has few roundings of at most L/2, and what the projection's dot product had."""
    counts = module._levels.long()
    z, size = module.project_in(x).double(), x.abs()
    if module.has_projections:
        size = size @ module.project_in.weight.abs().T + module.project_in.bias.abs()
    position = bound_levels(z, counts, 1.0) * (counts // 2)
    edge = ((position - 0.5) - (position - 0.5).round()).abs()
    return (edge > counts * EPS * (8 + (module.dim + 2) * size)).all(-1)


SHAPES = [(2, 0, 3, 4, 4), (2, 0, 5, 6), (2, 60, 0)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dim", [None, 6])
def test_kept_codebook_gives_what_the_original_gave(shape: tuple[int, ...], dim: int | None) -> None:
    """For videos, images and sequences, with and without projections; 0 stands for the channels."""
    torch.manual_seed(3)
    original = FSQRegularizer(levels=[8, 5, 3], dim=dim).eval()
    assert contract_of(original).contract == "vidtok"
    assert torch.equal(take_codebook(nn.Sequential(original)), original.implicit_codebook)
    model = plug_in(nn.Sequential(copy.deepcopy(original)), "fsq", keep_codebook=True)
    x = latents(*(size or original.dim for size in shape))
    (new, found), (reference, indices) = model(x), original(x)
    assert (new.shape, found.shape) == (reference.shape, indices.shape)
    channels_last = x.movedim(1, -1) if x.ndim > 3 else x
    clear = is_clear(original, channels_last)
    assert clear.float().mean() > 0.9
    assert torch.equal(found[clear], indices[clear].long())
    scale = torch.ones(original.dim)  # codes are at most 1
    if original.has_projections:
        scale = 5 * (original.project_out.weight.abs().sum(-1) + original.project_out.bias.abs())
    error = (new - reference).abs()
    assert ((error.movedim(1, -1) if x.ndim > 3 else error) <= EPS * scale)[clear].all()
    for given in (indices, indices.reshape(2, -1, 1)):
        decoded, expected = model[0].indices_to_codes(given), original.indices_to_codes(given)
        assert decoded.shape == expected.shape
        torch.testing.assert_close(decoded, expected)


def test_a_model_keeps_its_codes() -> None:
    model, x = build().eval(), video()
    before, indices = model.encode(x)
    decoded = model(x).sample
    plug_in(model, "fsq", keep_codebook=True)
    after, found = model.encode(x)
    assert torch.equal(found, indices.long())  # none is at an edge
    torch.testing.assert_close(after, before, rtol=0, atol=EPS)
    torch.testing.assert_close(model(x).sample, decoded)


def test_several_codebooks_of_the_original_are_kept() -> None:
    """In sequences; for videos the original has an axis for one codebook only."""
    original = FSQRegularizer(levels=[8, 5], num_codebooks=2).eval()
    model = plug_in(nn.Sequential(copy.deepcopy(original)), "fsq", keep_codebook=True)
    x = latents(2, 60, original.dim)
    (new, found), (reference, indices) = model(x), original(x)
    assert found.shape == indices.shape == (2, 60, 2)
    assert (found == indices).float().mean() > 0.95
    same = (found == indices).all(-1)
    assert ((new - reference).abs() <= EPS)[same].all()


@pytest.mark.parametrize("name", ["fsq", "vq"])
def test_a_plugged_model_comes_back(name: str, tmp_path: Path) -> None:
    model, z = plug_in(build(), name, keep_codebook=name == "fsq").eval(), latents(2, WIDTH, 3, 4, 4)
    model.save_pretrained(tmp_path)
    loaded = from_pretrained(type(model), tmp_path)
    for own, other in zip(loaded.regularization(z), model.regularization(z), strict=True):
        assert torch.equal(own, other)


def test_what_is_not_supported_is_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"ResidualQuantizer, which has 4 indices per vector, .* expected a quan"):
        plug_in(build(), "residual")
    with pytest.raises(ValueError, match=r"codes to keep have \(\(8, 8\), 'tanh'\); expected 'fsq' with these le"):
        plug_in(build(), "vq", keep_codebook=True)
    with pytest.raises(ValueError, match=r"levels \(2, 8\), expected at least 3 in each channel"):
        plug_in(nn.Sequential(FSQRegularizer(levels=[2, 8])), "fsq", keep_codebook=True)


def test_the_class_of_the_same_name_in_the_authors_repository_is_another() -> None:
    """It has weights of losses, and its forward returns a dict."""
    original = FSQRegularizer(levels=[8, 8])
    original.entropy_loss_weight = 0.0
    assert contract_of(original) is None
    with pytest.raises(ValueError, match="Sequential, in which no quantizer of a known contract was found"):
        plug_in(nn.Sequential(original), "fsq")


def test_half_precision_is_the_models() -> None:
    adapter = plug_in(build(), "vq").bfloat16().eval().regularization
    quantized, indices = adapter(latents(2, WIDTH, 3, 4, 4).bfloat16())
    assert quantized.dtype == torch.bfloat16
    assert adapter.indices_to_codes(indices).dtype == torch.bfloat16


def test_unplug_puts_back_what_stood_there() -> None:
    model = build().eval()
    check_unplugs(model, "regularization", lambda: model(video()).sample)
