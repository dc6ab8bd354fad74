"""taming-transformers' first VectorQuantizer, against a stand-in."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from quantizers import metrics, plug_in
from quantizers.adapters.bases.usage import perplexity
from tests.adapters.common import METHODS, check_kept, check_unplugs, loss_falls
from tests.adapters.images.stand_in_taming import VectorQuantizer

CODES, WIDTH, SIDE = 64, 8, 8


class Model(nn.Module):
    """An autoencoder around it."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(3, WIDTH, 2, stride=2)
        self.quantize = VectorQuantizer(CODES, WIDTH, beta=0.25)
        self.decoder = nn.ConvTranspose2d(WIDTH, 3, 2, stride=2)


def build() -> Model:
    torch.manual_seed(0)
    return Model()


def images() -> Tensor:
    return torch.rand(2, 3, 2 * SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", METHODS)
def test_trains_encodes_and_decodes(name: str) -> None:
    model, x = build(), images()
    plug_in(model, name)

    def losses() -> tuple[Tensor, Tensor]:
        quantized, loss, _ = model.quantize(model.encoder(x))
        return functional.mse_loss(model.decoder(quantized), x), loss

    loss_falls(model, losses)
    model.eval()
    quantized, loss, (use, one_hot, indices) = model.quantize(model.encoder(x))
    assert loss.dim() == use.dim() == 0
    assert one_hot is None
    assert indices.shape == (SIDE * SIDE, 1)
    for given_indices in (indices, indices.squeeze(1)):
        codes = model.quantize.get_codebook_entry(given_indices, (2, SIDE, SIDE // 2, WIDTH))
        torch.testing.assert_close(codes, quantized)
    rows = model.quantize.get_codebook_entry(indices, None)
    torch.testing.assert_close(rows, quantized.movedim(1, -1).reshape(-1, WIDTH))


@pytest.mark.parametrize("name", METHODS)
def test_kept_codebook_gives_what_the_model_gave(name: str) -> None:
    model = build()
    if name == "fsq":
        with pytest.raises(ValueError, match="cannot keep a codebook"):
            plug_in(model, name, keep_codebook=True)
        return
    model.eval()
    latents = model.encoder(images())

    def run() -> tuple[Tensor, Tensor, Tensor]:
        quantized, loss, (_, _, indices) = model.quantize(latents)
        return quantized, loss, indices.squeeze(1)

    check_kept(model, name, latents, run)


def test_perplexity_is_that_of_the_original() -> None:
    model = build()
    latents = model.encoder(images())
    before, _, indices = model.quantize(latents)[2]
    plug_in(model, "vq", keep_codebook=True)
    after, _, new_indices = model.quantize(latents)[2]
    assert torch.equal(new_indices, indices)
    torch.testing.assert_close(after, before)


@given(st.lists(st.lists(st.integers(-1, 5), min_size=3, max_size=3), min_size=1, max_size=40))
def test_perplexity_is_that_of_the_counts(rows: list[list[int]]) -> None:
    """A mean of logarithms of N counts, each below ln N: N roundings in the entropy at most, on its own scale."""
    indices = torch.tensor(rows)
    books = [metrics.perplexity(metrics.code_counts(column, 6)) for column in indices.unbind(-1)]
    scale = max(math.log(len(rows)), 1) * (len(rows) + 4)
    rounding = scale * torch.finfo(torch.float32).eps
    assert math.isclose(perplexity(indices).item(), sum(books), rel_tol=rounding)


def test_several_codebooks_have_a_column_each() -> None:
    model = build()
    plug_in(model, "residual", num_quantizers=3)
    model.eval()
    quantized, _, (use, _, indices) = model.quantize(model.encoder(images()))
    assert indices.shape == (SIDE * SIDE, 3)
    assert 3 <= use <= 3 * CODES
    codes = model.quantize.get_codebook_entry(indices, (2, SIDE, SIDE // 2, WIDTH))
    torch.testing.assert_close(codes, quantized)


@pytest.mark.parametrize("attribute", ["remap", "l2_norm"])
def test_other_quantizers_of_the_name_are_not_taken_for_it(attribute: str) -> None:
    model = build()
    setattr(model.quantize, attribute, True)
    with pytest.raises(ValueError, match="whose sizes contract 'taming_first' cannot read"):
        plug_in(model, "vq", at="quantize", contract="taming_first")
    if attribute == "l2_norm":
        with pytest.raises(ValueError, match="no quantizer of a known contract"):
            plug_in(model, "vq")


def test_unplug_puts_back_what_stood_there() -> None:
    model, x = build(), images()
    check_unplugs(model, "quantize", lambda: model.quantize(model.encoder(x))[0])
