"""taming-transformers' GumbelQuantize, against a stand-in."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from quantizers import GumbelQuantizer, create, plug_in, take_codebook
from tests.adapters.common import METHODS, check_unplugs, loss_falls
from tests.adapters.images.stand_in_taming import GumbelQuantize

CODES, HIDDEN, WIDTH, SIDE = 64, 12, 8, 8


class Model(nn.Module):
    """An autoencoder around it."""

    def __init__(self, hidden: int, **options: Any) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(3, hidden, 2, stride=2)
        self.quantize = GumbelQuantize(hidden, WIDTH, CODES, **options)
        self.decoder = nn.ConvTranspose2d(WIDTH, 3, 2, stride=2)


def build(hidden: int = HIDDEN, **options: Any) -> Model:
    torch.manual_seed(0)
    return Model(hidden, **options)


def images() -> Tensor:
    return torch.rand(2, 3, 2 * SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("name", "hidden"), [*((name, HIDDEN) for name in METHODS), ("gumbel", WIDTH)])
def test_trains_encodes_and_decodes(name: str, hidden: int) -> None:
    model, x = build(hidden), images()
    plug_in(model, name)
    temperatures = (max(2 * 0.9**step, 0.5) for step in itertools.count())

    def losses() -> tuple[Tensor, Tensor]:
        temperature = next(temperatures)
        model.quantize.temperature = temperature
        assert float(model.quantize.temperature) == pytest.approx(temperature)
        quantized, loss, _ = model.quantize(model.encoder(x))
        return functional.mse_loss(model.decoder(quantized), x), loss

    loss_falls(model, losses)
    model.eval()
    quantized, loss, (_, _, indices) = model.quantize(model.encoder(x))
    assert loss.dim() == 0
    assert quantized.shape == (2, WIDTH, SIDE, SIDE // 2)
    assert indices.shape == (2, SIDE, SIDE // 2)
    codes = model.quantize.get_codebook_entry(indices.flatten(), (2, SIDE, SIDE // 2, WIDTH))
    torch.testing.assert_close(codes, quantized)
    torch.testing.assert_close(model.quantize.embed(indices).movedim(-1, 1), quantized)


def test_kept_codebook_gives_the_code_of_the_largest_logit() -> None:
    """Which the original gives in the limit of no noise; its loss is of the logits alone."""
    model = build(WIDTH, kl_weight=0.1).eval()
    z = model.encoder(images())
    logits, loss = model.quantize.proj(z).detach(), model.quantize(z)[1]
    codebook = take_codebook(model)
    plug_in(model, "gumbel", keep_codebook=True)
    quantized, new_loss, (_, _, indices) = model.quantize(z)
    two = logits.topk(2, dim=1)
    # A dot product of WIDTH terms and a bias, in either; none of the terms is larger than the scale.
    scale = (z.abs().amax(1) + 1) * (WIDTH + 1)
    clear = two.values[:, 0] - two.values[:, 1] > 2 * (WIDTH + 2) * torch.finfo(torch.float32).eps * scale
    assert clear.float().mean() > 0.9
    assert torch.equal(indices[clear], two.indices[:, 0][clear])
    assert torch.equal(quantized, functional.embedding(indices, codebook).movedim(-1, 1))
    assert torch.equal(take_codebook(model), codebook)
    torch.testing.assert_close(new_loss, loss)


def test_gumbel_gets_the_settings_of_the_original() -> None:
    model = build(straight_through=False, kl_weight=0.3, temp_init=1.5)
    plug_in(model, "gumbel")
    inner = model.quantize.quantizer
    assert (inner.hard, inner.kl_weight, float(inner.temperature)) == (False, 0.3, 1.5)
    plug_in(model, "gumbel", hard=True, kl_weight=0.2, temperature=3.0)
    inner = model.quantize.quantizer
    assert (inner.hard, inner.kl_weight, float(inner.temperature)) == (True, 0.2, 3.0)
    plug_in(model, "lfq")  # whose temperature is another thing
    assert model.quantize.quantizer.temperature == create("lfq", dim=WIDTH, codebook_size=CODES).temperature


def test_what_cannot_be_kept_is_a_sentence() -> None:
    with pytest.raises(ValueError, match="by a linear map, which this VectorQuantizer cannot keep"):
        plug_in(build(WIDTH), "vq", keep_codebook=True)
    with pytest.raises(ValueError, match="by a linear map, which this GumbelQuantizer cannot keep"):
        plug_in(build(WIDTH), "gumbel", logits="distance", keep_codebook=True)
    with pytest.raises(ValueError, match=f"a linear map of {HIDDEN} channels, but its codes have {WIDTH}"):
        plug_in(build(), "gumbel", keep_codebook=True)


def test_a_temperature_reaches_every_gumbel_quantizer_and_is_read_back_from_it() -> None:
    model = build()
    plug_in(model, "residual", quantizer="gumbel", num_quantizers=2)
    model.quantize.temperature = 0.25
    parts = [part for part in model.modules() if isinstance(part, GumbelQuantizer)]
    assert [float(part.temperature) for part in parts] == [0.25, 0.25]
    parts[0].temperature = 0.75  # as a schedule of this library does
    assert float(model.quantize.temperature) == 0.75


def test_arguments_that_have_no_meaning_are_sentences() -> None:
    model = build()
    plug_in(model, "gumbel")
    z = model.encoder(images())
    with pytest.raises(ValueError, match=r"temp is 0\.5, expected None"):
        model.quantize(z, temp=0.5)
    with pytest.raises(ValueError, match="return_logits is True, expected False"):
        model.quantize(z, return_logits=True)
    model.quantize.original.remap = "indices.npy"
    with pytest.raises(ValueError, match="expected remap=None"):
        plug_in(model, "gumbel")


def test_indices_stand_alone_where_the_original_says_so() -> None:
    model = build(use_vqinterface=False)
    plug_in(model, "vq")
    assert model.quantize(model.encoder(images()))[2].shape == (2, SIDE, SIDE // 2)


def test_a_module_of_another_class_has_as_many_channels_as_codes() -> None:
    model = nn.Sequential(nn.Identity())
    plug_in(model, "vq", at="0", contract="taming_gumbel", dim=WIDTH, codebook_size=CODES)
    assert model[0](torch.randn(1, WIDTH, 2, 2))[0].shape == (1, WIDTH, 2, 2)


def test_unplug_puts_back_what_stood_there() -> None:
    model, x = build(), images()
    check_unplugs(model, "quantize", lambda: model.quantize.proj(model.encoder(x)))
