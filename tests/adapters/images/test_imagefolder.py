"""ImageFolder's two quantizers, against stand-ins, in a product of two."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from quantizers import plug_in, take_codebook, unplug
from quantizers.adapters.recognition import contract_named, contract_of
from tests.adapters.common import METHODS, check_kept, loss_falls
from tests.adapters.images import stand_in_var
from tests.adapters.images.stand_in_imagefolder import VectorQuantizer, VectorQuantizer2
from tests.adapters.round_trip import check_loads

CODES, WIDTH = 32, 6
SIDES = (1, 1, 2, 3, 3, 4)
PLACES = ["quantizes.0", "quantizes.1"]
KEEPING = ("vq", "ema_vq", "simvq", "rotation_vq")


def scales(**options: Any) -> VectorQuantizer2:
    torch.manual_seed(0)
    return VectorQuantizer2(CODES, WIDTH, **{"v_patch_nums": SIDES, **options})


def single(**options: Any) -> VectorQuantizer:
    torch.manual_seed(0)
    return VectorQuantizer(CODES, WIDTH, **options)


ORIGINALS: dict[str, Callable[[], nn.Module]] = {"imagefolder": scales, "imagefolder_single": single}
kinds = pytest.mark.parametrize("kind", ORIGINALS)
SETTINGS: dict[str, dict[str, Any]] = {
    "released": {},
    "euclidean": {"using_znorm": False, "beta": 0.7},
    "one": {"share_quant_resi": 1},
}
every_setting = pytest.mark.parametrize("setting", SETTINGS)


class Model(nn.Module):
    """An autoencoder with a quantizer for each half of its channels, which it calls as XQ-GAN's VQModel does."""

    def __init__(self, kind: str, **options: Any) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(3, 2 * WIDTH, 2, stride=2)
        make = {"imagefolder": scales, "imagefolder_single": single}[kind]
        self.quantizes = nn.ModuleList([make(**options) for _ in PLACES])
        self.decoder = nn.ConvTranspose2d(2 * WIDTH, 3, 2, stride=2)
        self.depths = None if kind == "imagefolder_single" else (3, len(SIDES) + 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, list[Any]]:
        dropout = None if self.depths is None else torch.randint(*self.depths, (len(x),))
        halves = zip(self.quantizes, self.encoder(x).chunk(2, 1), strict=True)
        outputs = [quantize(h, ret_usages=True, dropout=dropout) for quantize, h in halves]
        quants, usages, codebook, commitment, entropy = zip(*outputs, strict=True)
        loss = sum(codebook) / 2 + sum(commitment) / 2 + sum(entropy) / 2
        return self.decoder(torch.cat(quants, 1)), loss, [sum(each) / 2 for each in zip(*usages, strict=True)]

    def reconstruct(self, x: Tensor) -> Tensor:
        halves = zip(self.quantizes, self.encoder(x).chunk(2, 1), strict=True)
        found = [quantize.f_to_idxBl_or_fhat(h, to_fhat=True, v_patch_nums=None) for quantize, h in halves]
        return self.decoder(torch.cat([each[-1] for each in found], 1))


def build(kind: str, **options: Any) -> Model:
    torch.manual_seed(0)
    return Model(kind, **options)


def images() -> Tensor:
    return torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def latents() -> Tensor:
    return torch.randn(3, WIDTH, 4, 4, generator=torch.Generator().manual_seed(1))


@kinds
@pytest.mark.parametrize("name", METHODS)
def test_trains_encodes_and_decodes(kind: str, name: str) -> None:
    model, x = build(kind), images()
    plug_in(model, name, at=PLACES)

    def losses() -> tuple[Tensor, Tensor]:
        decoded, loss, usages = model(x)
        assert len(usages) == (len(SIDES) if kind == "imagefolder" else 1)
        assert all(0 <= usage <= 100 for usage in usages)
        return functional.mse_loss(decoded, x), loss

    loss_falls(model, losses, rate=1e-2)
    model.eval()
    torch.testing.assert_close(model.reconstruct(x), model(x)[0])


@pytest.mark.parametrize("name", METHODS)
def test_generation_reads_what_the_scales_add_up_to(name: str) -> None:
    """XQ-GAN samples as VAR does: codes are looked up scale by scale."""
    model, x = build("imagefolder"), images()
    plug_in(model, name, at=PLACES).eval()
    quantize, f_hat = model.quantizes[0], torch.zeros(4, WIDTH, 4, 4)
    h = model.encoder(x).chunk(2, 1)[0]
    tokens = quantize.f_to_idxBl_or_fhat(h, to_fhat=False)
    assert [each.shape for each in tokens] == [(4, side**2) for side in SIDES]
    with torch.no_grad():
        for position, (side, own) in enumerate(zip(SIDES, tokens, strict=True)):
            codes = quantize.embedding(own).mT.unflatten(2, (side, side))
            f_hat, _ = quantize.get_next_autoregressive_input(position, len(SIDES), f_hat, codes)
    torch.testing.assert_close(f_hat, quantize(h)[0])


@kinds
def test_loads_what_it_saves(kind: str) -> None:
    check_loads(lambda: plug_in(build(kind), "simvq", at=PLACES), lambda model: model.reconstruct(images()))


@every_setting
def test_forward_of_scales_is_that_of_the_original(setting: str) -> None:
    """Value, the sum of the losses, and gradients of the encoder and the codes."""
    original = scales(**SETTINGS[setting])
    adapter = plug_in(nn.Sequential(original), "vq", keep_codebook=True)[0]
    found = []
    for module, table in (
        (original, original.embedding.weight),
        (adapter, adapter.quantizer.components[0].codebook),
    ):
        f = latents().requires_grad_()
        f_hat, usages, codebook, commitment, entropy = module(f)
        assert usages is None
        assert entropy == 0
        (codebook + commitment + (f_hat * torch.linspace(-1, 1, 4)).mean()).backward()
        found.append([f_hat, codebook + commitment, f.grad, table.grad])
    for old, new in zip(*found, strict=True):
        torch.testing.assert_close(new, old, rtol=1e-5, atol=1e-6)  # six scales, added up in different orders


@every_setting
def test_kept_scales_give_the_original_indices(setting: str) -> None:
    original = scales(**SETTINGS[setting]).eval()
    adapter = plug_in(nn.Sequential(original), "vq", keep_codebook=True)[0]
    theirs = original.f_to_idxBl_or_fhat(latents(), False)
    for ours, other in zip(adapter.f_to_idxBl_or_fhat(latents(), False), theirs, strict=True):
        assert torch.equal(ours, other)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("name", KEEPING)
def test_a_kept_codebook_of_one_scale_gives_what_the_model_gave(name: str, norm: bool) -> None:
    model, z = nn.Sequential(single(codebook_norm=norm)).eval(), latents().requires_grad_()

    def run() -> tuple[Tensor, Tensor, Tensor]:
        quantized, _, codebook, commitment, _ = model[0](z)
        indices = model[0].f_to_idxBl_or_fhat(z, to_fhat=False)[0]
        return quantized, codebook + commitment, indices

    normalize = (lambda vectors: functional.normalize(vectors, dim=-1)) if norm else (lambda vectors: vectors)
    # A norm rounds as often as there are channels, in vectors and in codes.
    check_kept(model, name, z, run, normalize, roundings=2 * (WIDTH + 3) if norm else 1)


def test_a_single_scale_has_the_attributes_that_perturbations_read() -> None:
    for norm in (False, True):
        adapter = plug_in(nn.Sequential(single(codebook_norm=norm)), "vq", keep_codebook=True)[0]
        assert (adapter.z_channels, adapter.codebook_norm, adapter.vocab_size) == (WIDTH, norm, CODES)
        assert adapter.embedding.weight.shape == (CODES, WIDTH)
        indices = torch.tensor([3, 1])
        assert torch.equal(adapter.embedding(indices), adapter.embedding.weight[indices])


def test_usage_of_one_scale_is_the_share_of_codes_in_the_batch() -> None:
    original = single()
    expected = original(latents())[1]
    adapter = plug_in(nn.Sequential(original), "vq", keep_codebook=True)[0]
    assert adapter(latents())[1][0].item() == pytest.approx(expected[0])
    assert adapter(latents(), ret_usages=False)[1] == [0.0]
    several = plug_in(nn.Sequential(original), "residual", quantizer="vq", num_quantizers=2)[0]
    indices = several.f_to_idxBl_or_fhat(latents(), False)[0]
    assert indices.shape == (3 * 16, 2)
    shares = [100 * len(column.unique()) / CODES for column in indices.unbind(-1)]
    assert several.eval()(latents())[1][0].item() == pytest.approx(sum(shares) / 2)


def test_scales_drop_out_as_often_as_in_the_original() -> None:
    adapter = plug_in(nn.Sequential(scales(codebook_drop=0.5)), "vq")[0]
    assert (adapter.quantizer.dropout, adapter.quantizer.dropout_by) == (0.5, "sample")
    assert plug_in(nn.Sequential(scales()), "vq")[0].quantizer.dropout == 0


def test_quantizers_of_one_name_are_told_apart() -> None:
    var = stand_in_var.VectorQuantizer2(CODES, WIDTH, using_znorm=False, v_patch_nums=SIDES)
    assert contract_of(scales()) is contract_named("imagefolder")
    assert contract_of(single()) is contract_named("imagefolder_single")
    assert contract_of(var) is contract_named("var")
    for module, other in ((var, "imagefolder"), (scales(), "var")):
        with pytest.raises(ValueError, match=f"contract '{other}' cannot read"):
            plug_in(nn.Sequential(module), "vq", contract=other)


@kinds
def test_unplug_puts_back_what_stood_there(kind: str) -> None:
    model, x = build(kind).eval(), images()
    originals, before = [*model.quantizes], model.reconstruct(x)
    with pytest.raises(ValueError, match=r"which has quantizers at 'quantizes\.0'"):
        plug_in(model, "vq")
    plug_in(model, "vq", at=PLACES)
    assert take_codebook(model, at=PLACES[0]).shape[-2:] == (CODES, WIDTH)
    unplug(model)
    assert [*model.quantizes] == originals
    assert torch.equal(model.reconstruct(x), before)
