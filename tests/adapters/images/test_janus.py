"""The VQ-VAE of Janus, which decodes indices alone, by codes of unit norm."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from quantizers import plug_in
from tests.adapters.common import METHODS, check_kept, check_unplugs, loss_falls

janus = pytest.importorskip("transformers.models.janus.modeling_janus", reason="the extra `models` has it")
CODES, WIDTH, SIDE = 64, 8, 4


def build() -> Any:
    torch.manual_seed(0)
    config = janus.JanusVQVAEConfig(
        embed_dim=WIDTH,
        num_embeddings=CODES,
        latent_channels=WIDTH,
        base_channels=32,
        channel_multiplier=(1, 1),
        num_res_blocks=1,
        num_patches=SIDE,
        projection_dim=WIDTH,
        image_token_embed_dim=WIDTH,
    )
    model = janus.JanusVQVAE(config)
    with torch.no_grad():  # latents and codes on one scale
        model.quant_conv.weight.normal_()
        model.quantize.embedding.weight.normal_()
    model.post_quant_conv.reset_parameters()
    return model


def images() -> Tensor:
    """Four coloured tiles each."""
    colours = torch.rand(2, 3, 2, 2, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return colours.repeat_interleave(SIDE, -1).repeat_interleave(SIDE, -2)


@pytest.mark.parametrize("name", METHODS)
def test_trains_encodes_and_decodes(name: str) -> None:
    model, x = plug_in(build(), name), images()

    def losses() -> tuple[Tensor, Tensor]:
        out = model.encode(x)
        decoded = model.decoder(model.post_quant_conv(out.quantized_last_hidden_state))
        return functional.mse_loss(decoded, x), out.embedding_loss

    loss_falls(model, losses)
    out = model.eval().encode(x)
    tokens = out.image_tokens.view(2, SIDE * SIDE)
    codes = model.quantize.get_codebook_entry(tokens)
    torch.testing.assert_close(codes, functional.normalize(out.quantized_last_hidden_state, dim=1))
    if name not in ("fsq", "gumbel"):  # whose codes have other norms than one
        torch.testing.assert_close(codes, out.quantized_last_hidden_state)
    decoded, loss = model(x, return_dict=False)
    assert torch.equal(model.decode(tokens), decoded)
    assert torch.equal(loss, out.embedding_loss)


@pytest.mark.parametrize("name", METHODS)
def test_kept_codebook_gives_what_the_model_gave(name: str) -> None:
    model, x = build(), images()
    if name == "fsq":
        with pytest.raises(ValueError, match="cannot keep a codebook"):
            plug_in(model, name, keep_codebook=True)
        return
    latents = model.quant_conv(model.encoder(x))
    tokens = model.quantize(latents)[2].view(2, -1)
    decoded = model.decode(tokens)
    check_kept(model, name, latents, lambda: model.quantize(latents))
    assert torch.equal(model.decode(tokens), decoded)


def test_several_codebooks_decode_from_one_axis_of_tokens() -> None:
    """As `forward` of the model hands them on."""
    model, x = plug_in(build(), "residual", num_quantizers=3).eval(), images()
    quantized = model.encode(x).quantized_last_hidden_state
    indices = model.encode(x).image_tokens
    assert indices.shape == (2 * SIDE * SIDE, 3)
    codes = model.quantize.get_codebook_entry(indices.view(2, -1))
    torch.testing.assert_close(codes, functional.normalize(quantized, dim=1))


@pytest.mark.parametrize("cast_first", [True, False])
def test_codes_have_the_dtype_that_the_model_was_cast_to(cast_first: bool) -> None:
    model, x = build(), images().bfloat16()
    model = plug_in(model.bfloat16(), "vq") if cast_first else plug_in(model, "vq").bfloat16()
    assert model.quantize.quantizer.codebook.dtype == torch.float32
    assert model.quantize.embedding.weight.dtype == torch.bfloat16
    assert model(x).decoded_pixel_values.dtype == torch.bfloat16
    assert model.encode(x).quantized_last_hidden_state.dtype == torch.bfloat16


def test_unplug_puts_back_what_stood_there() -> None:
    model, x = build(), images()
    check_unplugs(model, "quantize", lambda: model(x).decoded_pixel_values)
