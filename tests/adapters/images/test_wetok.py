"""GFQ of WeTok, against a stand-in."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from quantizers import create, plug_in
from quantizers.adapters.recognition import contract_of
from tests.adapters.common import METHODS, check_unplugs, loss_falls
from tests.adapters.images.stand_in_open_magvit2 import GFQ

BITS, COUNT, SIDE = 4, 3, 8
WIDTH = BITS * COUNT
SHAPE = (2, SIDE, SIDE // 2, WIDTH)


def quantizer(**options: Any) -> GFQ:
    """As in the autoencoder."""
    torch.manual_seed(0)
    return GFQ(dim=WIDTH, codebook_size=2**BITS, num_codebooks=COUNT, **options)


def factorized() -> GFQ:
    """As in the model that generates indices."""
    return quantizer(token_factorization=True, factorized_bits=[BITS] * COUNT)


ORIGINALS: dict[str, Callable[[], nn.Module]] = {"wetok": factorized}


class Model(nn.Module):
    """An autoencoder around it."""

    def __init__(self, quantize: GFQ) -> None:
        super().__init__()
        self.quantize = quantize
        self.encoder = nn.Conv2d(3, WIDTH, 2, stride=2)
        self.decoder = nn.ConvTranspose2d(WIDTH, 3, 2, stride=2)

    def encode(self, x: Tensor) -> Any:
        (quantized, emb_loss, info), loss_breakdown = self.quantize(self.encoder(x), return_loss_breakdown=True)
        return quantized, emb_loss, info, loss_breakdown

    def decode_indices(self, indices: list[Tensor]) -> Tensor:
        """The vectors of lists of indices [B, H·W], as the model that generates them decodes them."""
        parts = [
            self.quantize.get_codebook_entry(part, (*SHAPE[:3], bits), index_order=number)
            for number, (part, bits) in enumerate(zip(indices, self.quantize.factorized_bits, strict=True))
        ]
        return torch.cat(parts, 1)


def images() -> Tensor:
    return torch.rand(2, 3, 2 * SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", [*METHODS, "lfq"])
def test_trains_encodes_and_decodes(name: str) -> None:
    model, x = Model(factorized()), images()
    assert contract_of(model.quantize).contract == "wetok"
    plug_in(model, name)

    def losses() -> tuple[Tensor, Tensor]:
        quantized, loss, _, breakdown = model.encode(x)
        return functional.mse_loss(model.decoder(quantized), x), 0.1 * loss + 0.25 * breakdown.commitment

    loss_falls(model, losses)
    quantized, _, indices, _ = model.eval().encode(x)
    assert isinstance(indices, list)
    assert [part.shape for part in indices] == [(SIDE * SIDE,)] * COUNT
    torch.testing.assert_close(model.decode_indices([part.view(2, -1) for part in indices]), quantized)


@pytest.mark.parametrize("make", [quantizer, factorized])
def test_kept_codes_are_those_of_the_original(make: Callable[[], GFQ]) -> None:
    model = Model(make()).eval()
    latents = model.encoder(images())
    before, _, indices = model.quantize(latents)
    plug_in(model, "lfq", keep_codebook=True)
    after, _, new_indices = model.quantize(latents)
    torch.testing.assert_close(after, before)
    if not model.quantize.token_factorization:
        assert torch.equal(new_indices, indices)
        vectors = model.quantize.get_codebook_entry(indices.view(2, -1, COUNT), SHAPE)
        torch.testing.assert_close(vectors, after)
        return
    assert torch.equal(torch.stack(new_indices), torch.stack(indices))
    torch.testing.assert_close(model.decode_indices([part.view(2, -1) for part in indices]), after)


def test_each_group_of_channels_needs_one_codebook_to_be_decoded_alone() -> None:
    with pytest.raises(ValueError, match="9 codebooks for 3 groups of channels"):
        plug_in(Model(factorized()), "residual", num_quantizers=3)
    whole = create("residual", dim=WIDTH, codebook_size=8, num_quantizers=COUNT, channel_dim=1)
    with pytest.raises(ValueError, match="3 codebooks for 1 groups of channels"):
        plug_in(Model(factorized()), whole)
    model = plug_in(Model(quantizer()), whole).eval()
    quantized, _, indices, _ = model.encode(images())
    vectors = model.quantize.get_codebook_entry(indices.view(2, -1, COUNT), SHAPE)
    torch.testing.assert_close(vectors, quantized)


def test_parts_that_are_not_the_codebooks_are_a_sentence() -> None:
    model = Model(quantizer(token_factorization=True, factorized_bits=[WIDTH - BITS, BITS]))
    with pytest.raises(ValueError, match=r"has factorized_bits=\[8, 4\], expected \[4, 4, 4\]"):
        plug_in(model, "lfq")


def test_unplug_puts_back_what_stood_there() -> None:
    model, x = Model(factorized()), images()
    check_unplugs(model, "quantize", lambda: model.encode(x)[0])
