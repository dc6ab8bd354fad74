"""LFQ of Open-MAGVIT2 and WeTok, against a stand-in."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from quantizers import plug_in, take_codebook
from quantizers.adapters.recognition import contract_of
from tests.adapters.common import METHODS, check_unplugs, loss_falls
from tests.adapters.images.stand_in_open_magvit2 import LFQ

BITS, SIDE = 6, 8
CODES = 2**BITS
VECTORS = SIDE * SIDE


def quantizer(**options: Any) -> LFQ:
    torch.manual_seed(0)
    return LFQ(**{"dim": BITS, "codebook_size": CODES, **options})


def grouped(**options: Any) -> LFQ:
    return quantizer(dim=2 * BITS, num_codebooks=2, **options)


ORIGINALS: dict[str, Callable[[], nn.Module]] = {"open_magvit2": quantizer}


class Model(nn.Module):
    """An autoencoder around it, which calls it as LFQGAN does."""

    def __init__(self, quantize: LFQ) -> None:
        super().__init__()
        self.quantize = quantize
        self.encoder = nn.Conv2d(3, quantize.dim, 2, stride=2)
        self.decoder = nn.ConvTranspose2d(quantize.dim, 3, 2, stride=2)

    def encode(self, x: Tensor) -> Any:
        (quantized, emb_loss, info), loss_breakdown = self.quantize(self.encoder(x), return_loss_breakdown=True)
        return quantized, emb_loss, info, loss_breakdown


def images() -> Tensor:
    return torch.rand(2, 3, 2 * SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def shape(model: Model) -> tuple[int, ...]:
    return 2, SIDE, SIDE // 2, model.quantize.dim


@pytest.mark.parametrize("name", [*METHODS, "lfq"])
@pytest.mark.parametrize("make", [quantizer, grouped])
def test_trains_encodes_and_decodes(name: str, make: Callable[[], LFQ]) -> None:
    model, x = Model(make()), images()
    assert contract_of(model.quantize).contract == "open_magvit2"
    count = model.quantize.num_codebooks
    plug_in(model, name)

    def losses() -> tuple[Tensor, Tensor]:
        quantized, loss, _, breakdown = model.encode(x)
        return functional.mse_loss(model.decoder(quantized), x), 0.1 * loss + 0.25 * breakdown.commitment

    loss_falls(model, losses)
    quantized, loss, indices, breakdown = model.eval().encode(x)
    assert loss.dim() == 0
    assert torch.equal(torch.stack(breakdown), torch.zeros(4))
    assert indices.shape == (VECTORS * count,)
    codes = indices.view(2, -1, count) if count > 1 else indices.view(2, -1)
    torch.testing.assert_close(model.quantize.get_codebook_entry(codes, shape(model)), quantized)
    rows = model.quantize.decode(indices.view(-1, count))
    torch.testing.assert_close(rows, quantized.movedim(1, -1).reshape(VECTORS, -1))
    assert model.quantize.num_codebooks == count


@pytest.mark.parametrize("make", [quantizer, grouped])
def test_kept_codes_are_those_of_the_original(make: Callable[[], LFQ]) -> None:
    model = Model(make()).eval()
    latents = model.encoder(images())
    latents.view(-1)[:: 2 * BITS] = 0.0  # which has the sign of −1
    before, _, indices = model.quantize(latents)
    codebook = take_codebook(model)
    rows = model.quantize.decode(indices.view(2, -1, model.quantize.num_codebooks))
    plug_in(model, "lfq", keep_codebook=True)
    after, _, new_indices = model.quantize(latents)
    assert torch.equal(new_indices, indices)
    # The original returns x + (sign − x), rounded twice, on the scale of the larger.
    assert ((after - before).abs() <= 2 * torch.finfo(torch.float32).eps * (1 + latents.abs())).all()
    assert torch.equal(model.quantize.quantizer.groups[0].codebook, codebook)
    assert torch.equal(model.quantize.decode(indices.view(2, -1, model.quantize.num_codebooks)), rows)


def test_kept_quantizer_has_the_losses_of_the_original() -> None:
    """Up to the 10⁻⁵ that the original adds to each of K shares, in a logarithm."""
    model = Model(quantizer(sample_minimization_weight=0.8, batch_maximization_weight=1.2))
    latents = model.encoder(images())
    (_, entropy, _), breakdown = model.quantize(latents, return_loss_breakdown=True)
    assert entropy == 0.8 * breakdown.per_sample_entropy - 1.2 * breakdown.codebook_entropy
    plug_in(model, "lfq", keep_codebook=True)
    loss = model.quantize(latents)[1]
    expected = 0.1 * entropy + 0.25 * breakdown.commitment
    torch.testing.assert_close(0.1 * loss, expected, rtol=1e-5, atol=0.1 * 1.2 * CODES * 1e-5)
    assert model.quantize(latents, return_loss=False)[1] == 0


@pytest.mark.parametrize("make", [quantizer, grouped])
@pytest.mark.parametrize("name", METHODS)
def test_other_codes_are_not_those_of_the_original(name: str, make: Callable[[], LFQ]) -> None:
    with pytest.raises(ValueError, match="the codes to keep are the signs of 6 channels; expected 'lfq'"):
        plug_in(Model(make()), name, keep_codebook=True)


def test_what_is_not_supported_is_a_sentence() -> None:
    with pytest.raises(ValueError, match="token_factorization=True and splits each index in two"):
        plug_in(Model(quantizer(token_factorization=True, factorized_bits=[2, 4])), "lfq")
    with pytest.raises(ValueError, match="has sample_minimization_weight=0, but 'lfq' weights"):
        plug_in(Model(quantizer(sample_minimization_weight=0.0)), "lfq", keep_codebook=True)
    model = plug_in(Model(quantizer()), "lfq")
    with pytest.raises(ValueError, match="mask is a Tensor, expected None"):
        model.quantize(torch.randn(1, BITS, 2, 2), mask=torch.ones(1, 4, 1, dtype=torch.bool))
    with pytest.raises(ValueError, match="'lfq' without codebook_size="):
        plug_in(Model(quantizer()), "lfq", codebook_size=4, group_bits=1, keep_codebook=True)


@pytest.mark.parametrize("sizes", [(3,), (3, 2, 2)])
def test_positions_have_any_number_of_axes(sizes: tuple[int, ...]) -> None:
    original, x = quantizer().eval(), torch.randn(2, BITS, *sizes)
    quantized, _, indices = plug_in(original, "lfq", keep_codebook=True).eval()(x)
    before, _, expected = original(x)
    torch.testing.assert_close(quantized, before)
    assert torch.equal(indices, expected)


def test_one_codebook_decodes_as_many_indices_as_it_gets() -> None:
    original, codes = quantizer(), torch.arange(12).view(2, 2, 3)
    expected = original.decode(codes)
    assert expected.shape == (2, 2, 3 * BITS)
    assert torch.equal(plug_in(original, "lfq", keep_codebook=True).decode(codes), expected)


def test_the_temperature_of_a_copy_is_an_option() -> None:
    adapter = plug_in(quantizer(), "lfq", keep_codebook=True, temperature=0.1, commitment_weight=0.25)
    assert (adapter.quantizer.temperature, adapter.quantizer.commitment_weight) == (0.1, 0.25)
    assert plug_in(quantizer(), "lfq", keep_codebook=True).quantizer.temperature == 0.01


def test_unplug_puts_back_what_stood_there() -> None:
    model, x = Model(quantizer()), images()
    check_unplugs(model, "quantize", lambda: model.encode(x)[0])
