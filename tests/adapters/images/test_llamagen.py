"""LlamaGen's VectorQuantizer, against a stand-in."""

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from quantizers import plug_in, take_codebook
from quantizers.adapters.recognition import contract_of
from tests.adapters.common import METHODS, check_kept, check_unplugs, loss_falls
from tests.adapters.images.stand_in_llamagen import VectorQuantizer

CODES, WIDTH, SIDE = 64, 8, 8


def quantizer(*, entropy: float = 0.0, l2_norm: bool = True, show_usage: bool = True) -> VectorQuantizer:
    torch.manual_seed(0)
    made = VectorQuantizer(CODES, WIDTH, 0.25, entropy, l2_norm, show_usage)
    nn.init.normal_(made.embedding.weight)
    return made


ORIGINALS: dict[str, Callable[[], nn.Module]] = {"llamagen": quantizer}


class Model(nn.Module):
    """An autoencoder around it, with LlamaGen's methods."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.quantize = quantizer(**options)
        self.encoder = nn.Conv2d(3, WIDTH, 2, stride=2)
        self.decoder = nn.ConvTranspose2d(WIDTH, 3, 2, stride=2)

    def encode(self, x: Tensor) -> Any:
        return self.quantize(self.encoder(x))

    def decode_code(self, codes: Tensor, shape: tuple[int, ...], channel_first: bool = True) -> Tensor:
        decoded: Tensor = self.decoder(self.quantize.get_codebook_entry(codes, shape, channel_first))
        return decoded


def images() -> Tensor:
    return torch.rand(2, 3, 2 * SIDE, SIDE, generator=torch.Generator().manual_seed(1))


SHAPE = (2, WIDTH, SIDE, SIDE // 2)


@pytest.mark.parametrize("name", METHODS)
def test_trains_encodes_and_decodes(name: str) -> None:
    model, x = Model(), images()
    assert contract_of(model.quantize).contract == "llamagen"
    plug_in(model, name)

    def losses() -> tuple[Tensor, Tensor]:
        quantized, (vq_loss, commit_loss, entropy_loss, usage), _ = model.encode(x)
        assert f"{usage:.4f}" != "0.0000"  # as the training script shows it
        return functional.mse_loss(model.decoder(quantized), x), vq_loss + commit_loss + entropy_loss

    loss_falls(model, losses)
    quantized, parts, (perplexity, one_hot, indices) = model.eval().encode(x)
    assert parts == (None, None, None, 0)
    assert perplexity is one_hot is None
    assert indices.shape == (SIDE * SIDE,)
    codes = model.quantize.get_codebook_entry(indices, SHAPE)
    torch.testing.assert_close(codes, quantized)
    rows = quantized.movedim(1, -1)
    torch.testing.assert_close(model.quantize.get_codebook_entry(indices), rows.reshape(-1, WIDTH))
    last = model.quantize.get_codebook_entry(indices, tuple(rows.shape), channel_first=False)
    torch.testing.assert_close(last, rows)
    torch.testing.assert_close(model.decode_code(indices.view(2, -1), SHAPE), model.decoder(quantized))
    torch.testing.assert_close(model.quantize.embedding(indices), rows.reshape(-1, WIDTH))
    assert model.quantize.e_dim == WIDTH
    if name not in ("fsq", "gumbel"):  # which have no distance
        torch.testing.assert_close(rows.norm(dim=-1), torch.ones(rows.shape[:-1]))


@pytest.mark.parametrize("l2_norm", [True, False])
@pytest.mark.parametrize("name", METHODS)
def test_kept_codebook_gives_what_the_model_gave(name: str, l2_norm: bool) -> None:
    model = Model(l2_norm=l2_norm)
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
    division = {
        "metric": lambda vectors: functional.normalize(vectors, dim=-1),
        "roundings": 1 + 2 * (WIDTH + 2),
    }
    check_kept(model, name, latents, run, **(division if l2_norm else {}))


def test_kept_codebook_decodes_as_before() -> None:
    model = Model().eval()
    indices = torch.arange(CODES)
    before = model.quantize.get_codebook_entry(indices, SHAPE)
    plug_in(model, "vq", keep_codebook=True)
    torch.testing.assert_close(model.quantize.get_codebook_entry(indices, SHAPE), before)


def test_kept_quantizer_has_the_entropy_loss_of_the_original() -> None:
    """Up to the 10⁻⁵ that the original adds to each of K shares, in a logarithm: in all at most K · 10⁻⁵ nats."""
    model = Model(entropy=0.5)
    latents = model.encoder(images())
    before = sum(model.quantize(latents)[1][:3])
    plug_in(model, "vq", keep_codebook=True)
    torch.testing.assert_close(sum(model.quantize(latents)[1][:3]), before, rtol=1e-5, atol=0.5 * CODES * 1e-5)
    assert not Model().quantize.entropy_loss_ratio
    assert not plug_in(Model(), "vq", keep_codebook=True).quantize.quantizer.regularizers


def test_usage_is_that_of_the_batch_and_only_shown_on_request() -> None:
    model, x = Model(), images()
    plug_in(model, "vq", keep_codebook=True)
    _, (*_, usage), (_, _, indices) = model.encode(x)
    assert usage == len(indices.unique()) / CODES
    model = Model(show_usage=False)
    plug_in(model, "vq")
    assert model.encode(x)[1][3] == 0


def test_several_codebooks_have_a_column_each() -> None:
    model, x = Model(), images()
    plug_in(model, "residual", num_quantizers=3)
    usage = model.encode(x)[1][3]
    assert 0 < usage <= 1
    quantized, _, (_, _, indices) = model.eval().encode(x)
    assert indices.shape == (SIDE * SIDE, 3)
    torch.testing.assert_close(model.quantize.get_codebook_entry(indices, SHAPE), quantized)


def test_saves_and_loads() -> None:
    model, other, x = plug_in(Model(), "simvq"), plug_in(Model(), "simvq"), images()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) / 10)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other.eval().encode(x)[0], model.eval().encode(x)[0])


class Factorized(nn.Module):
    """Two quantizers side by side, whose codes are put together, as FQGAN has them."""

    def __init__(self) -> None:
        super().__init__()
        self.quantize_sem, self.quantize_vis = quantizer(), quantizer()

    def forward(self, sem: Tensor, vis: Tensor) -> Tensor:
        return torch.cat([self.quantize_vis(vis)[0], self.quantize_sem(sem)[0]], 1)


def test_quantizers_side_by_side_are_replaced_by_their_paths() -> None:
    model = Factorized().eval()
    parts = torch.randn(2, *SHAPE)
    before = model(*parts)
    with pytest.raises(ValueError, match="at=\\['quantize_sem', 'quantize_vis'\\] for all of them"):
        plug_in(model, "vq")
    plug_in(model, "vq", at=["quantize_sem", "quantize_vis"], keep_codebook=True)
    torch.testing.assert_close(model(*parts), before)
    assert model.quantize_sem.quantizer is not model.quantize_vis.quantizer


def test_codes_have_unit_norm_with_l2_norm() -> None:
    codes = take_codebook(Model())
    torch.testing.assert_close(codes.norm(dim=-1), torch.ones(CODES))
    model = Model(l2_norm=False)
    assert torch.equal(take_codebook(model), model.quantize.embedding.weight)


def test_a_module_of_another_class_has_no_usage() -> None:
    model = nn.Sequential(nn.Identity())
    plug_in(model, "vq", at="0", contract="llamagen", dim=WIDTH, codebook_size=CODES)
    quantized, losses, _ = model[0](torch.randn(1, WIDTH, 2, 2))
    assert quantized.shape == (1, WIDTH, 2, 2)
    assert losses[3] == 0


def test_a_copy_with_another_tuple_is_refused_and_left_alone() -> None:
    class WithPrior(VectorQuantizer):
        def forward(self, z: Tensor) -> tuple[Tensor, Any, tuple[None, None, Tensor]]:
            quantized, losses, info = super().forward(z)
            return quantized, (*losses[:3], None, losses[3]), info

    WithPrior.__name__ = "VectorQuantizer"
    model = Model()
    model.quantize = own = WithPrior(CODES, WIDTH, 0.25, 0.0, True, True)
    with pytest.raises(ValueError, match="it looks like contract 'llamagen', but forward returns"):
        plug_in(model, "vq")
    assert model.quantize is own


def test_unplug_puts_back_what_stood_there() -> None:
    model, x = Model().eval(), images()
    check_unplugs(model, "quantize", lambda: model.encode(x)[0])
