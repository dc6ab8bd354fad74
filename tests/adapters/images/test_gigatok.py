"""GigaTok's VectorQuantizer, against a stand-in."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from quantizers import plug_in, take_codebook
from quantizers.adapters.recognition import contract_of
from tests.adapters.common import METHODS, check_kept, check_unplugs, loss_falls
from tests.adapters.images.stand_in_gigatok import VectorQuantizer

CODES, WIDTH, SIDE = 64, 8, 8
SHAPE = (2, WIDTH, SIDE, SIDE // 2)


def quantizer(**options: Any) -> VectorQuantizer:
    torch.manual_seed(0)
    made = VectorQuantizer(CODES, WIDTH, 0.25, 0.0, True, True, **options)
    nn.init.normal_(made.embedding.weight)
    return made


ORIGINALS: dict[str, Callable[[], nn.Module]] = {"gigatok": quantizer}


class Model(nn.Module):
    """An autoencoder around it, which calls it as GigaTok does."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.quantize = quantizer(**options)
        self.encoder = nn.Conv2d(3, WIDTH, 2, stride=2)
        self.decoder = nn.ConvTranspose2d(WIDTH, 3, 2, stride=2)

    def encode(self, x: Tensor, random_mix_reg: bool = False) -> Any:
        return self.quantize(self.encoder(x), random_replace=random_mix_reg, replace_ratio=0.1)


def images() -> Tensor:
    return torch.rand(2, 3, 2 * SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", METHODS)
def test_trains_encodes_and_decodes(name: str) -> None:
    model, x = Model(), images()
    assert contract_of(model.quantize).contract == "gigatok"
    plug_in(model, name)

    def losses() -> tuple[Tensor, Tensor]:
        quantized, parts, _ = model.encode(x)
        parts[2] = 0.0  # as the training loop sets it
        return functional.mse_loss(model.decoder(quantized), x), sum(parts[:-1])

    loss_falls(model, losses)
    quantized, parts, (_, _, indices) = model.eval().encode(x, random_mix_reg=True)
    assert parts == [None, None, None, 0]
    torch.testing.assert_close(model.quantize.get_codebook_entry(indices, SHAPE), quantized)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("options", [{}, {"simvq": True}])
def test_kept_codebook_gives_what_the_model_gave(name: str, options: dict[str, bool]) -> None:
    model = Model(**options)
    if name == "fsq":
        with pytest.raises(ValueError, match="cannot keep a codebook"):
            plug_in(model, name, keep_codebook=True)
        return
    latents = model.encoder(images())
    model.train(name not in ("ema_vq", "gumbel"))  # which move their codes in training, or draw them

    def run() -> tuple[Tensor, Tensor, Tensor]:
        quantized, losses, (_, _, indices) = model.quantize(latents)
        return quantized, sum(filter(torch.is_tensor, losses[:3]), torch.zeros(())), indices

    # A norm is a sum of squares and a root, one quotient follows; of codes that are unit vectors a second time.
    check_kept(
        model,
        name,
        latents,
        run,
        metric=lambda vectors: functional.normalize(vectors, dim=-1),
        roundings=1 + 2 * (WIDTH + 2),
    )


def test_kept_codes_pass_on_the_gradient_by_rotation_where_the_original_does() -> None:
    """Two reflections of D-vectors and a length, of values of order one: tens of roundings each."""
    model = Model(rot=True)
    latents = model.encoder(images())
    weights = torch.randn(SHAPE)
    before = model.quantize(latents)[0]
    gradient = torch.autograd.grad((before * weights).sum(), latents, retain_graph=True)[0]
    plug_in(model, "vq", keep_codebook=True)
    after = model.quantize(latents)[0]
    new = torch.autograd.grad((after * weights).sum(), latents)[0]
    torch.testing.assert_close(after, before, rtol=0, atol=50 * torch.finfo(torch.float32).eps)
    torch.testing.assert_close(new, gradient, rtol=0, atol=1e-4 * gradient.abs().max().item())
    assert Model().quantize.rot is False
    assert plug_in(Model(), "vq", keep_codebook=True).quantize.quantizer.gradient.__name__ == "straight_through"


def test_codes_of_simvq_are_those_after_the_transform() -> None:
    model = Model(simvq=True)
    codes = functional.normalize(model.quantize.get_emb(), dim=-1)
    assert torch.equal(take_codebook(model), codes)


def test_what_is_not_supported_is_a_sentence() -> None:
    with pytest.raises(ValueError, match="draws its codes, also in evaluation"):
        plug_in(Model(stochastic=True), "vq")
    model = Model(stochastic=True, eval_deterministic=True)
    plug_in(model, "vq")
    with pytest.raises(ValueError, match="random_replace is True, expected False"):
        model.encode(images(), random_mix_reg=True)


def test_unplug_puts_back_what_stood_there() -> None:
    model, x = Model().eval(), images()
    check_unplugs(model, "quantize", lambda: model.encode(x)[0])
