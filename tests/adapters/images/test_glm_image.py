"""The VQ-VAE of GLM-Image, whose codes lie on the unit sphere."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from quantizers import plug_in
from tests.adapters.common import METHODS, check_kept, check_unplugs, loss_falls

glm_image = pytest.importorskip(
    "transformers.models.glm_image.modeling_glm_image", reason="the extra `models` has it"
)
CODES, WIDTH, CHANNELS, SIDE = 64, 8, 12, 8


def build() -> Any:
    torch.manual_seed(0)
    config = glm_image.GlmImageVQVAEConfig(embed_dim=WIDTH, num_embeddings=CODES, latent_channels=CHANNELS)
    return glm_image.GlmImageVQVAE(config)


def features() -> Tensor:
    return torch.randn(2, CHANNELS, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) + 1


@pytest.mark.parametrize("name", METHODS)
def test_trains_encodes_and_decodes(name: str) -> None:
    model, x = plug_in(build(), name), features()

    def losses() -> tuple[Tensor, Tensor]:
        out = model.encode(x)
        decoded = model.post_quant_conv(out.quantized_last_hidden_state)
        return nn.functional.mse_loss(decoded, x), out.embedding_loss

    loss_falls(model, losses)
    out = model.eval().encode(x)
    assert out.image_tokens.shape == (2 * SIDE * SIDE,)
    codes = model.quantize.embedding(out.image_tokens.view(2, SIDE, SIDE)).movedim(-1, 1)
    torch.testing.assert_close(codes, out.quantized_last_hidden_state)
    if name not in ("fsq", "gumbel"):  # which have no distance
        torch.testing.assert_close(codes.norm(dim=1), torch.ones(2, SIDE, SIDE))


@pytest.mark.parametrize("name", METHODS)
def test_kept_codebook_gives_what_the_model_gave(name: str) -> None:
    model = build()
    if name == "fsq":
        with pytest.raises(ValueError, match="cannot keep a codebook"):
            plug_in(model, name, keep_codebook=True)
        return
    latents = model.quant_conv(features())
    # A norm is a sum of squares and a root, one quotient follows; of codes that are unit vectors a second time.
    check_kept(
        model,
        name,
        latents,
        lambda: model.quantize(latents),
        metric=lambda vectors: nn.functional.normalize(vectors, dim=-1),
        roundings=1 + 2 * (WIDTH + 2),
    )


def test_unplug_puts_back_what_stood_there() -> None:
    model, x = build(), features()
    check_unplugs(model, "quantize", lambda: model.encode(x).quantized_last_hidden_state)
