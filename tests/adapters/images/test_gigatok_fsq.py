"""GigaTok's FSQ, against a stand-in."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from quantizers import plug_in, take_codebook
from quantizers.adapters.recognition import contract_of
from tests.adapters.common import METHODS, check_unplugs, loss_falls
from tests.adapters.images.stand_in_gigatok import FSQ

LEVELS, SIDE = (5, 4, 3), 8


def quantizer(**options: Any) -> FSQ:
    torch.manual_seed(0)
    return FSQ(LEVELS, **options)


ORIGINALS: dict[str, Callable[[], nn.Module]] = {"gigatok_fsq": quantizer}


class Model(nn.Module):
    """An autoencoder around it, which calls it as GigaTok's FSQModel does."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.quantize = quantizer(**options)
        width = self.quantize.dim
        self.encoder = nn.Conv2d(3, width, 2, stride=2)
        self.decoder = nn.ConvTranspose2d(width, 3, 2, stride=2)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        quantized, indices, codebook_usage = self.quantize(self.encoder(x))
        return quantized, indices, codebook_usage


def images() -> Tensor:
    return torch.rand(2, 3, 2 * SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", METHODS)
def test_trains_encodes_and_decodes(name: str) -> None:
    model, x = Model(dim=8), images()
    assert contract_of(model.quantize).contract == "gigatok_fsq"
    plug_in(model, name)

    def losses() -> tuple[Tensor, Tensor]:
        quantized, _, usage = model.encode(x)
        assert 0 < usage <= 1
        return functional.mse_loss(model.decoder(quantized), x), model.quantize.loss

    loss_falls(model, losses)
    quantized, indices, _ = model.eval().encode(x)
    assert indices.shape == (2, SIDE, SIDE // 2)
    torch.testing.assert_close(model.quantize.indices_to_codes(indices), quantized)


@pytest.mark.parametrize("options", [{}, {"dim": 8}, {"channel_first": True}])
def test_kept_grid_gives_what_the_model_gave(options: dict[str, Any]) -> None:
    model = Model(**options).eval()
    latents = model.encoder(images())
    before, indices, _ = model.quantize(latents)
    codebook = take_codebook(model)
    torch.testing.assert_close(codebook, model.quantize.implicit_codebook)
    plug_in(model, "fsq", keep_codebook=True)
    after, new_indices, usage = model.quantize(latents)
    edges = model.quantize.original.bound(model.quantize.project_in(latents.movedim(1, -1)))
    # A bounded channel of up to 3 has been through a product, a tanh and sums; half of it is an edge.
    clear = ((edges - edges.floor() - 0.5).abs() > 100 * torch.finfo(torch.float32).eps).all(-1)
    assert clear.float().mean() > 0.9
    assert torch.equal(new_indices[clear], indices[clear])
    torch.testing.assert_close(after.movedim(1, -1)[clear], before.movedim(1, -1)[clear])
    assert usage == torch.tensor(len(new_indices.unique()) / len(codebook))
    torch.testing.assert_close(model.quantize.indices_to_codes(new_indices), after)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "fsq"])
def test_codes_of_other_methods_cannot_be_kept(name: str) -> None:
    with pytest.raises(ValueError, match="expected 'fsq' with these levels"):
        plug_in(Model(), name, keep_codebook=True)


def test_the_contract_of_the_package_does_not_take_it() -> None:
    with pytest.raises(ValueError, match="it has show_usage"):
        plug_in(Model(), "vq", at="quantize", contract="vector_quantize_pytorch_fsq")
    package = pytest.importorskip("vector_quantize_pytorch")
    with pytest.raises(ValueError, match="it has no show_usage"):
        plug_in(nn.Sequential(package.FSQ(LEVELS)), "vq", at="0", contract="gigatok_fsq")


def test_several_codebooks_have_an_axis() -> None:
    model = plug_in(Model(), "residual", quantizer="vq", num_quantizers=2).eval()
    quantized, indices, usage = model.encode(images())
    assert indices.shape == (2, SIDE, SIDE // 2, 2)
    assert 0 < usage <= 1
    torch.testing.assert_close(model.quantize.indices_to_codes(indices), quantized)


def test_unplug_puts_back_what_stood_there() -> None:
    model, x = Model(), images()
    check_unplugs(model, "quantize", lambda: model.encode(x)[0])
