"""The VQ-VAE of Emu3, whose quantizer gives indices and nothing else."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from quantizers import plug_in, take_codebook
from tests.adapters.common import METHODS, agrees, check_unplugs, loss_falls

emu3 = pytest.importorskip("transformers.models.emu3.modeling_emu3", reason="the extra `models` has it")
CODES, WIDTH, FRAMES, SIDE = 64, 8, 2, 4


def build() -> Any:
    torch.manual_seed(0)
    config = emu3.Emu3VQVAEConfig(
        codebook_size=CODES,
        embed_dim=WIDTH,
        latent_channels=WIDTH,
        base_channels=32,
        channel_multiplier=(1, 1),
        num_res_blocks=1,
        attn_resolutions=(),
        hidden_size=32,
        temporal_downsample_factor=2,
    )
    return emu3.Emu3VQVAE(config)


def video() -> Tensor:
    """Frames of four coloured tiles."""
    colours = torch.rand(1, 2 * FRAMES, 3, 2, 2, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return colours.repeat_interleave(SIDE, -1).repeat_interleave(SIDE, -2)


def latents(model: Any, x: Tensor) -> Tensor:
    """The input of the model's quantizer, [B, T, C, H, W]."""
    return model.quant_conv(model.encoder(x).transpose(1, 2)).transpose(1, 2)


def tokens(model: Any, x: Tensor) -> Tensor:
    """[B, T, H, W]."""
    sizes = torch.tensor([x.shape[-2:]] * len(x))
    return torch.stack(model.encode(x, image_sizes=sizes).image_tokens)


@pytest.mark.parametrize("name", METHODS)
def test_trains_encodes_and_decodes(name: str) -> None:
    """By the loop that the adapter's docstring gives."""
    model, x = plug_in(build(), name), video()

    def decoded() -> tuple[Tensor, Tensor]:
        quantized, _, loss = model.quantize.quantizer(latents(model, x))
        out = model.decoder(model.post_quant_conv(quantized.transpose(1, 2)).transpose(1, 2), quantized)
        return out.view(x.shape), loss

    def losses() -> tuple[Tensor, Tensor]:
        pixels, loss = decoded()
        return functional.mse_loss(pixels, x), loss

    loss_falls(model, losses)
    model.eval()
    indices = tokens(model, x)
    assert indices.shape == (1, FRAMES, SIDE, SIDE)
    torch.testing.assert_close(model.decode(indices), decoded()[0])


@pytest.mark.parametrize("name", METHODS)
def test_kept_codebook_gives_what_the_model_gave(name: str) -> None:
    model, x = build(), video()
    if name == "fsq":
        with pytest.raises(ValueError, match="cannot keep a codebook"):
            plug_in(model, name, keep_codebook=True)
        return
    codebook, before = take_codebook(model), tokens(model, x)
    decoded = model.decode(before)
    plug_in(model, name, keep_codebook=True)
    z = latents(model, x).movedim(2, -1).reshape(-1, WIDTH)
    assert agrees(tokens(model, x).flatten(), before.flatten(), z, codebook)
    assert torch.equal(model.decode(before), decoded)


def test_indices_are_those_of_evaluation_and_move_no_state() -> None:
    model = plug_in(build(), "ema_vq")
    z, standing = latents(model, video()), model.quantize
    before = {name: value.clone() for name, value in standing.state_dict().items()}
    indices = standing(z)
    assert torch.equal(standing.train()(z), indices)
    assert all(torch.equal(value, before[name]) for name, value in standing.state_dict().items())
    standing.quantizer(z)  # the loop's own call moves it
    assert not all(torch.equal(value, before[name]) for name, value in standing.state_dict().items())


def test_images_are_encoded_and_decoded_too() -> None:
    model, x = plug_in(build(), "vq"), video()[:, 0]
    sizes = torch.tensor([x.shape[-2:]] * len(x))
    indices = torch.stack(model.encode(x, image_sizes=sizes).image_tokens)
    assert indices.shape == (1, SIDE, SIDE)
    assert model.decode(indices).shape == x.shape


def test_decodes_in_the_dtype_that_the_model_was_cast_to() -> None:
    model = plug_in(build(), "vq").bfloat16()
    x = video().bfloat16()
    assert model.decode(tokens(model, x)).dtype == torch.bfloat16


def test_several_codebooks_are_a_sentence() -> None:
    model = build()
    original = model.quantize
    with pytest.raises(
        ValueError, match=r"ResidualQuantizer, which has 4 indices per vector, .* expected a quantizer"
    ):
        plug_in(model, "residual")
    assert model.quantize is original


def test_unplug_puts_back_what_stood_there() -> None:
    model, x = build(), video()
    check_unplugs(model, "quantize", lambda: model.decode(tokens(model, x)))
