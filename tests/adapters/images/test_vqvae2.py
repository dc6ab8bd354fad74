"""VQ-VAE-2 with two quantizers, in a stand-in."""

import pytest
import torch
from torch import Tensor

from quantizers import plug_in, take_codebook, unplug
from tests.adapters.common import METHODS, agrees, loss_falls
from tests.adapters.images.stand_in_vqvae2 import VQVAE

EPS = torch.finfo(torch.float32).eps
PLACES = ["quantize_t", "quantize_b"]


def images(seed: int = 1) -> Tensor:
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def built(steps: int = 0) -> VQVAE:
    """A model whose averages have moved by some steps."""
    torch.manual_seed(0)
    model = VQVAE()
    for step in range(steps):
        model(images(step))
    return model


@pytest.mark.parametrize("name", METHODS)
def test_trains_encodes_and_decodes(name: str) -> None:
    model = built()
    assert plug_in(model, name, at=PLACES) is model
    x = images()

    def losses() -> tuple[Tensor, Tensor]:
        decoded, diff = model(x)
        return torch.nn.functional.mse_loss(decoded, x), diff.squeeze(0)

    loss_falls(model, losses, rate=3e-2)
    model.eval()
    top, bottom, diff, id_t, id_b = model.encode(x)
    assert (diff.shape, id_t.shape, id_b.shape) == ((1,), (4, 4, 4), (4, 8, 8))
    torch.testing.assert_close(model.decode_code(id_t, id_b), model.decode(top, bottom))
    assert model.quantize_t.quantizer is not model.quantize_b.quantizer
    unplug(model, at="quantize_t")
    assert type(model.quantize_t).__name__ == "Quantize"
    assert type(model.quantize_b).__name__ == "VQVAE2Adapter"


def test_a_model_in_half_precision_decodes_its_codes() -> None:
    model = plug_in(built().eval(), "vq", at=PLACES).bfloat16()
    *_, id_t, id_b = model.encode(images().bfloat16())
    assert model.decode_code(id_t, id_b).dtype == torch.bfloat16


def test_two_places_are_asked_for_by_name() -> None:
    model = built()
    with pytest.raises(
        ValueError, match=r"at 'quantize_t' \(Quantize\), 'quantize_b' \(Quantize\); pass one path as at="
    ):
        plug_in(model, "vq")
    with pytest.raises(ValueError, match="at 'quantize_t'"):
        take_codebook(model)
    plug_in(model, "vq", at="quantize_b")
    assert type(model.quantize_t).__name__ == "Quantize"


@pytest.mark.parametrize("name", ["vq", "ema_vq", "simvq", "rotation_vq", "gumbel"])
def test_kept_codebook_gives_what_the_model_gave(name: str) -> None:
    model = built(steps=3).eval()
    original, z = model.quantize_t, torch.randn(2, 6, 5, 8, generator=torch.Generator().manual_seed(3))
    codebook = take_codebook(model, at="quantize_t")
    assert torch.equal(codebook, original.embed.T)
    before, _, indices = original(z)
    plug_in(model, name, at=PLACES, keep_codebook=True)
    after, _, found = model.quantize_t(z)
    assert agrees(found.reshape(-1), indices.reshape(-1), z.reshape(-1, 8), codebook)
    # The original returns z + (e − z), rounded twice, on the scale of the larger of them.
    bound = EPS * (torch.maximum(z.abs(), before.abs()) + z.abs())
    assert ((after - before).abs() <= bound)[found == indices].all()
    assert torch.equal(model.quantize_t.embed_code(indices), original.embed_code(indices))
    assert torch.equal(model.quantize_t.embed, original.embed)
    assert (model.quantize_t.dim, model.quantize_t.n_embed) == (original.dim, original.n_embed)


def test_averages_go_on_as_they_were() -> None:
    """Three steps of training move the codes alike: averages, decay and ε are the original's."""
    model, other = built(steps=3), built(steps=3)
    plug_in(other, "ema_vq", at=PLACES, keep_codebook=True)
    new, original = other.quantize_b.quantizer, model.quantize_b
    for step in range(3):
        z = torch.randn(100, 8, generator=torch.Generator().manual_seed(step))
        reference, found = original(z), other.quantize_b(z)
        torch.testing.assert_close(found[1], reference[1])
    torch.testing.assert_close(new.cluster_size, original.cluster_size)
    # Each step sums 100 vectors, of norms that add up, and rounds the average thrice.
    size = new.embedding_sum.abs() + 100 * 0.1 * 4
    bound = 3 * (100 + 3) * EPS * size
    assert (new.decay, new.epsilon) == (original.decay, original.eps)
    assert ((new.embedding_sum - original.embed_avg.T).abs() <= bound).all()
    assert not torch.equal(new.codebook, built(steps=3).quantize_b.embed.T)
    assert torch.equal(unplug(other).quantize_b.embed, built(steps=3).quantize_b.embed)


def test_several_codebooks_have_no_table() -> None:
    model = plug_in(built(), "residual", at="quantize_t", num_quantizers=2)
    indices = model.encode(images())[3]
    assert indices.shape == (4, 4, 4, 2)
    assert model.quantize_t.embed_code(indices).shape == (4, 4, 4, 8)
    with pytest.raises(ValueError, match="several codebooks"):
        _ = model.quantize_t.embed
