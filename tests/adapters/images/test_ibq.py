"""SEED-Voken's and Emu3.5's IndexPropagationQuantize, against a stand-in."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from quantizers import plug_in, take_codebook
from quantizers.adapters.recognition import contract_of
from tests.adapters.common import METHODS, check_unplugs, loss_falls
from tests.adapters.images.stand_in_ibq import IndexPropagationQuantize

CODES, WIDTH, SIDE = 64, 8, 8
LAST = (2, SIDE, SIDE // 2, WIDTH)


def quantizer(**options: Any) -> IndexPropagationQuantize:
    torch.manual_seed(0)
    return IndexPropagationQuantize(CODES, WIDTH, **options)


ORIGINALS: dict[str, Callable[[], nn.Module]] = {"ibq": quantizer}


class Model(nn.Module):
    """An autoencoder around it."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.quantize = quantizer(**options)
        self.encoder = nn.Conv2d(3, WIDTH, 2, stride=2)
        self.decoder = nn.ConvTranspose2d(WIDTH, 3, 2, stride=2)

    def encode(self, x: Tensor) -> Any:
        return self.quantize(self.encoder(x))


def images() -> Tensor:
    return torch.rand(2, 3, 2 * SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", [*METHODS, "ibq"])
def test_trains_encodes_and_decodes(name: str) -> None:
    model, x = Model(), images()
    assert contract_of(model.quantize).contract == "ibq"
    plug_in(model, name)

    def losses() -> tuple[Tensor, Tensor]:
        quantized, loss, _ = model.encode(x)
        return functional.mse_loss(model.decoder(quantized), x), loss

    loss_falls(model, losses)
    quantized, loss, (_, _, indices) = model.eval().encode(x)
    assert loss.dim() == 0
    assert indices.shape == (SIDE * SIDE,)
    torch.testing.assert_close(model.quantize.get_codebook_entry(indices, shape=LAST), quantized)
    rows = model.quantize.get_codebook_entry(indices)
    torch.testing.assert_close(rows, quantized.movedim(1, -1).reshape(-1, WIDTH))
    assert (model.quantize.n_e, model.quantize.re_embed, model.quantize.e_dim)[1:] == (model.quantize.n_e, WIDTH)


def test_kept_codes_are_chosen_and_trained_as_by_the_original() -> None:
    """Two products are apart where they differ by more than the WIDTH roundings of either; of the results a code
    is multiplied by 1 − p + p, and the gradient sums over all codes."""
    model = Model()
    latents = model.encoder(images()) * 3
    codebook = take_codebook(model)
    before, loss, (_, _, indices) = model.quantize(latents)
    weights = torch.randn_like(before)

    def gradients(quantized: Tensor, loss: Tensor, codes: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad((quantized * weights).sum() + 100 * loss, (latents, codes), retain_graph=True)

    expected = gradients(before, loss, model.quantize.embedding.weight)
    plug_in(model, "ibq", keep_codebook=True)
    after, new_loss, (_, _, new_indices) = model.quantize(latents)
    rows = latents.detach().movedim(1, -1).reshape(-1, WIDTH)
    two = (rows.double() @ codebook.double().t()).topk(2).values
    scale = rows.abs().amax(-1) * codebook.abs().max() * WIDTH
    eps = torch.finfo(torch.float32).eps
    clear = two[:, 0] - two[:, 1] > 2 * WIDTH * eps * scale
    assert clear.all(), "a vector is between two codes: choose another seed"
    assert torch.equal(new_indices, indices)
    assert ((after - before).abs() <= 2 * eps * after.abs()).all()
    assert torch.equal(take_codebook(model), codebook)
    torch.testing.assert_close(new_loss, loss)
    got = gradients(after, new_loss, model.quantize.quantizer.embedding)
    for new, old in zip(got, expected, strict=True):
        # Sums over the codes, or over the vectors, of products of WIDTH terms, on the scale of the largest sum.
        assert (new - old).abs().max() <= 2 * (CODES + WIDTH) * eps * old.abs().max()
    codes = model.quantize.get_codebook_entry(indices, LAST)
    assert torch.equal(codes, functional.embedding(indices, codebook).view(LAST).movedim(-1, 1))


@pytest.mark.parametrize("name", METHODS)
def test_other_methods_cannot_keep_the_codes(name: str) -> None:
    with pytest.raises(ValueError, match="chooses the code of the largest product"):
        plug_in(Model(), name, keep_codebook=True)


def test_an_entropy_loss_has_its_place_in_a_tuple() -> None:
    model, x = Model(use_entropy_loss=True), images()
    plug_in(model, "ibq", keep_codebook=True, entropy_weight=0.05)
    for training in (True, False):
        parts = model.train(training).encode(x)[1]
        assert isinstance(parts, tuple)  # by which the training loop tells the two apart
        assert parts[0].requires_grad
        assert torch.equal(torch.stack(parts[1:]), torch.zeros(3))


def test_emus_version_has_no_loss_in_evaluation() -> None:
    model, x = Model(of_emu=True).eval(), images()
    for _ in range(2):
        assert model.encode(x)[1] == 0.0
        assert isinstance(model.encode(x)[1], float)
        assert model.train().encode(x)[1].requires_grad
        plug_in(model.eval(), "ibq")


@pytest.mark.parametrize("name", ["remap", "l2_normalize"])
def test_what_is_not_supported_is_a_sentence(name: str) -> None:
    model = Model()
    setattr(model.quantize, name, "used.npy")
    with pytest.raises(ValueError, match=f"has {name}='used.npy', which this contract does not support"):
        plug_in(model, "ibq")


def test_several_codebooks_have_a_column_each() -> None:
    model = plug_in(Model(), "residual", num_quantizers=3).eval()
    quantized, _, (_, _, indices) = model.encode(images())
    assert indices.shape == (SIDE * SIDE, 3)
    torch.testing.assert_close(model.quantize.get_codebook_entry(indices, LAST), quantized)


def test_unplug_puts_back_what_stood_there() -> None:
    model, x = Model().eval(), images()
    check_unplugs(model, "quantize", lambda: model.encode(x)[0])
