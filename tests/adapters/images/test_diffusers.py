"""The VQModel of diffusers, whose quantizer is taming-transformers'."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

from quantizers import plug_in, take_codebook, unplug
from tests.adapters.common import METHODS, agrees, loss_falls

diffusers = pytest.importorskip("diffusers", reason="the extra `models` has it")
CODES, WIDTH = 64, 8


def build(**options: Any) -> Any:
    torch.manual_seed(0)
    model = diffusers.VQModel(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=WIDTH,
        num_vq_embeddings=CODES,
        norm_num_groups=4,
        mid_block_add_attention=False,
        **options,
    )
    # The model's own first codes, ±1/K, lie in a speck that all latents are far from.
    torch.nn.init.normal_(model.quantize.embedding.weight)
    return model


def images() -> Tensor:
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("name", METHODS)
def test_trains_encodes_and_decodes(name: str) -> None:
    model = build()
    assert plug_in(model, name) is model
    x = images()

    def losses() -> tuple[Tensor, Tensor]:
        out = model(x)
        return torch.nn.functional.mse_loss(out.sample, x), out.commit_loss

    loss_falls(model, losses)
    model.eval()
    latents = model.encode(x).latents
    quantized, loss, (_, _, indices) = model.quantize(latents)
    assert loss.dim() == 0
    assert indices.shape == (2 * 8 * 8,)
    codes = model.quantize.get_codebook_entry(indices, shape=(2, 8, 8, WIDTH))
    torch.testing.assert_close(codes, quantized)
    assert torch.equal(model.decode(latents).sample, model(x).sample)


@pytest.mark.parametrize("name", METHODS)
def test_kept_codebook_gives_what_the_model_gave(name: str) -> None:
    """Except where float32 cannot distinguish two distances, and for codes that are not a table."""
    model, x = build().eval(), images()
    codebook = take_codebook(model)
    latents = model.encode(x).latents
    before, loss, (_, _, indices) = model.quantize(latents)
    if name == "fsq":
        with pytest.raises(ValueError, match="cannot keep a codebook"):
            plug_in(model, name, keep_codebook=True)
        assert model.quantize is not None
        assert torch.equal(model.quantize(latents)[0], before)  # unchanged
        return
    plug_in(model, name, keep_codebook=True)
    after, new_loss, (_, _, new_indices) = model.quantize(latents)
    z = latents.movedim(1, -1).reshape(-1, WIDTH)
    assert agrees(new_indices, indices, z, codebook)
    assert torch.equal(take_codebook(model), codebook)
    same = (new_indices == indices).view(2, 1, 8, 8).expand_as(after)
    # The original returns z + (e − z), rounded twice, on the scale of the larger of them.
    scale = torch.maximum(latents.abs(), before.abs()) + latents.abs()
    assert ((after - before).abs() <= scale * torch.finfo(torch.float32).eps)[same].all()
    if name not in ("ema_vq", "gumbel"):  # whose losses are others
        torch.testing.assert_close(new_loss, loss)


def test_unplug_puts_back_what_stood_there() -> None:
    model, x = build().eval(), images()
    original, before = model.quantize, model(x).sample
    keys = set(model.state_dict())
    plug_in(model, "simvq")
    assert set(model.state_dict()) != keys
    assert not any("original" in key for key in model.state_dict())
    plug_in(model, "fsq")  # the first gives way
    model.train()
    assert unplug(model) is model
    assert model.quantize is original
    assert original.training
    assert set(model.state_dict()) == keys
    assert torch.equal(model.eval()(x).sample, before)


def test_lookup_from_codebook_decodes_indices() -> None:
    """The path of pipelines that generate codes: `decode(indices, force_not_quantize=True, shape=...)`."""
    model = plug_in(build(lookup_from_codebook=True), "fsq").eval()
    x = images()
    latents = model.encode(x).latents
    indices = model.quantize(latents)[2][2]
    decoded = model.decode(indices, force_not_quantize=True, shape=(2, 8, 8, WIDTH)).sample
    torch.testing.assert_close(decoded, model(x).sample)


def test_copies_and_pickles_with_a_quantizer_inside() -> None:
    model, x = plug_in(build(), "simvq").eval(), images()
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(copied(x).sample, model(x).sample)
        assert type(unplug(copied).quantize).__name__ == "VectorQuantizer"
        assert type(model.quantize).__name__ == "TamingAdapter"
