"""The VQ-VAE of Chameleon, alone and within the language model that reads its indices as tokens."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from quantizers import plug_in
from tests.adapters.common import METHODS, check_kept, check_unplugs, loss_falls

chameleon = pytest.importorskip(
    "transformers.models.chameleon.modeling_chameleon", reason="the extra `models` has it"
)
CODES, WIDTH, SIDE = 64, 8, 8
SIZES = {
    "embed_dim": WIDTH,
    "num_embeddings": CODES,
    "latent_channels": WIDTH,
    "base_channels": 32,
    "channel_multiplier": (1, 1),
    "num_res_blocks": 1,
    "resolution": 2 * SIDE,
    "attn_type": "none",
}


def build() -> Any:
    torch.manual_seed(0)
    model = chameleon.ChameleonVQVAE(chameleon.ChameleonVQVAEConfig(**SIZES))
    scale(model)
    return model


def scale(model: Any) -> None:
    """transformers draws small weights, of which latents are far smaller than codes; a model of some training has
    both on one scale."""
    with torch.no_grad():
        model.quant_conv.weight.normal_()
        model.quantize.embedding.weight.normal_()
    model.post_quant_conv.reset_parameters()


def images() -> Tensor:
    """Four coloured tiles each."""
    colours = torch.rand(2, 3, 2, 2, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return colours.repeat_interleave(SIDE, -1).repeat_interleave(SIDE, -2)


@pytest.mark.parametrize("name", METHODS)
def test_trains_encodes_and_decodes(name: str) -> None:
    """transformers has no decoder of it; a transposed convolution is one."""
    model, x = plug_in(build(), name), images()
    decoder = nn.ConvTranspose2d(WIDTH, 3, 2, stride=2)
    parts = nn.ModuleList([model, decoder])

    def losses() -> tuple[Tensor, Tensor]:
        out = model.encode(x)
        decoded = decoder(model.post_quant_conv(out.quantized_last_hidden_state))
        return nn.functional.mse_loss(decoded, x), out.embedding_loss

    loss_falls(parts, losses)
    out = parts.eval()[0].encode(x)
    assert out.embedding_loss.dim() == 0
    assert out.image_tokens.shape == (2 * SIDE * SIDE,)
    codes = model.quantize.embedding(out.image_tokens.view(2, SIDE, SIDE)).movedim(-1, 1)
    torch.testing.assert_close(codes, out.quantized_last_hidden_state)


@pytest.mark.parametrize("name", METHODS)
def test_kept_codebook_gives_what_the_model_gave(name: str) -> None:
    model, x = build(), images()
    if name == "fsq":
        with pytest.raises(ValueError, match="cannot keep a codebook"):
            plug_in(model, name, keep_codebook=True)
        return
    latents = model.quant_conv(model.encoder(x))
    check_kept(model, name, latents, lambda: model.quantize(latents))


def test_unplug_puts_back_what_stood_there() -> None:
    model, x = build(), images()
    check_unplugs(model, "quantize", lambda: model.encode(x).quantized_last_hidden_state)


def test_sizes_are_those_that_the_model_reads() -> None:
    model = plug_in(build(), "vq", codebook_size=32)
    assert (model.quantize.num_embeddings, model.quantize.embedding_dim) == (32, WIDTH)
    assert model.quantize.embedding.weight.shape == (32, WIDTH)
    assert model.quantize.embedding.num_embeddings == 32


def test_several_codebooks_have_an_axis_of_indices() -> None:
    model = plug_in(build(), "residual", num_quantizers=3)
    assert model.encode(images()).image_tokens.shape == (2 * SIDE * SIDE, 3)


def test_indices_are_the_tokens_of_the_language_model() -> None:
    tokens = {"<image>": 0} | {f"IMGIMG{_letters(code)}Z": 100 + code for code in range(CODES)}
    config = chameleon.ChameleonConfig(
        vocab_size=200,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        vq_config=SIZES,
        vocabulary_map=tokens,
    )
    torch.manual_seed(0)
    model = chameleon.ChameleonModel(config)
    scale(model.vqmodel)
    plug_in(model, "vq")
    indices = model.vqmodel.encode(images()).image_tokens
    assert len(indices.unique()) > 1
    assert torch.equal(model.get_image_tokens(images()), 100 + indices.view(2, -1))


def _letters(code: int) -> str:
    return "".join(chr(ord("A") + int(digit)) for digit in str(code))
