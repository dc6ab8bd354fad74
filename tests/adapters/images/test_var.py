"""VAR's VectorQuantizer2, against a stand-in."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import quantizers
from quantizers import BSQ, VARQuantizer, VectorQuantizer, plug_in, take_codebook
from quantizers.adapters import plugged
from quantizers.adapters.recognition import contract_named, contract_of
from tests.adapters.common import METHODS, check_unplugs, loss_falls
from tests.adapters.images import stand_in_taming, stand_in_var
from tests.adapters.test_plugging import VectorQuantizer2 as TamingQuantizer

CODES, WIDTH = 32, 6
RELEASED = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
SIDES = (1, 2, 4)
INSIDE = (*METHODS, "bsq", "lfq")

SETTINGS: dict[str, dict[str, Any]] = {
    "released": {"v_patch_nums": RELEASED, "share_quant_resi": 4},
    "one": {"v_patch_nums": SIDES, "share_quant_resi": 1, "quant_resi": -0.3, "beta": 0.7},
    "two": {"v_patch_nums": (2, 3, 6), "share_quant_resi": 2},
    "each": {"v_patch_nums": (1, 2, 3, 4), "share_quant_resi": 0},
    "fewer": {"v_patch_nums": (1, 2, 3, 4, 5), "share_quant_resi": 0, "default_qresi_counts": 3},
    "repeated": {"v_patch_nums": (1, 1, 2, 3, 3, 4), "share_quant_resi": 4},
    "none": {"v_patch_nums": (1, 2, 4, 5), "share_quant_resi": 4, "quant_resi": 0.0},
    "angle": {"v_patch_nums": SIDES, "share_quant_resi": 1, "using_znorm": True},
}
every_setting = pytest.mark.parametrize("setting", SETTINGS)


class Model(nn.Module):
    """An autoencoder around the quantizer, which it calls as VAR's VQVAE does."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(3, WIDTH, 2, stride=2)
        self.quantize = stand_in_var.VectorQuantizer2(CODES, WIDTH, **{"using_znorm": False, **options})
        self.decoder = nn.ConvTranspose2d(WIDTH, 3, 2, stride=2)

    def img_to_idxBl(self, x: Tensor) -> list[Tensor]:
        return self.quantize.f_to_idxBl_or_fhat(self.encoder(x), to_fhat=False)

    def vectors(self, ms_idx_Bl: list[Tensor]) -> list[Tensor]:
        """What `idxBl_to_img` passes on: the codes of each scale as a map."""
        return [
            self.quantize.embedding(indices).mT.unflatten(2, (side, side))
            for indices, side in zip(ms_idx_Bl, self.quantize.v_patch_nums, strict=True)
        ]


def build(setting: str = "two") -> Model:
    torch.manual_seed(0)
    return Model(**SETTINGS[setting])


def latents(model: Model, batch: int = 3) -> Tensor:
    side = model.quantize.v_patch_nums[-1]
    return torch.randn(batch, WIDTH, side, side, generator=torch.Generator().manual_seed(1))


def images(model: Model) -> Tensor:
    side = 2 * model.quantize.v_patch_nums[-1]
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1))


def kept(setting: str) -> tuple[Any, Model]:
    """The original quantizer, and a model in which one of ours has its codes and convolutions."""
    model = build(setting)
    original = model.quantize
    return original, plug_in(model, "vq", keep_codebook=True)


def close(new: Tensor, old: Tensor) -> None:
    """Equal to eight roundings of values up to 1: the two add up to ten scales in different orders."""
    torch.testing.assert_close(new, old, rtol=1e-6, atol=1e-6)


def weights(quantizer: Any) -> Iterator[Tensor]:
    """The codes, then the weights and biases of the convolutions."""
    yield from (quantizer.embedding.weight, *quantizer.quant_resi.parameters())


@every_setting
def test_forward_is_that_of_the_original(setting: str) -> None:
    """Value, loss, and gradients of the encoder, the codes and the convolutions."""
    original, model = kept(setting)
    quantizer, f = model.quantize.quantizer, latents(model)
    found = []
    own = [quantizer.components[0].codebook, *quantizer.blends.parameters()]
    for module, parameters in ((original, [*weights(original)]), (model.quantize, own)):
        x = f.clone().requires_grad_()
        f_hat, usages, loss = module(x)
        assert usages is None
        (loss + (f_hat * torch.linspace(-1, 1, f.shape[-1])).mean()).backward()
        found.append([f_hat, loss, x.grad, *(parameter.grad for parameter in parameters)])
    for new, old in zip(*found[::-1], strict=True):
        close(new, old)


@every_setting
def test_methods_are_those_of_the_original(setting: str) -> None:
    original, model = kept(setting)
    new, f, scales = model.quantize, latents(model), len(SETTINGS[setting]["v_patch_nums"])
    indices = original.f_to_idxBl_or_fhat(f, False)
    for ours, theirs in zip(new.f_to_idxBl_or_fhat(f, to_fhat=False), indices, strict=True):
        assert torch.equal(ours, theirs)
    close(new.embedding(indices[1]), original.embedding(indices[1]))
    close(new.embedding.weight, original.embedding.weight)
    vectors = model.vectors(indices)
    with torch.no_grad():
        found = [module.f_to_idxBl_or_fhat(f, True) for module in (new, original)]
        for ours, theirs in zip(*found, strict=True):
            close(ours, theirs)
        for to_full in (True, False):
            sums = original.embed_to_fhat(vectors, all_to_max_scale=to_full)
            for ours, theirs in zip(new.embed_to_fhat(vectors, all_to_max_scale=to_full), sums, strict=True):
                close(ours, theirs)
            close(new.embed_to_fhat(vectors, all_to_max_scale=to_full, last_one=True), sums[-1])
        both = [torch.zeros_like(f) for _ in range(2)]
        for position, h in enumerate(vectors):
            (ours, our_next), (theirs, their_next) = (
                module.get_next_autoregressive_input(position, scales, f_hat, h)
                for module, f_hat in zip((new, original), both, strict=True)
            )
            close(ours, theirs)
            close(our_next, their_next)
            assert ours is both[0]
            close(new.quant_resi[position / (scales - 1)](f), original.quant_resi[position / (scales - 1)](f))


@every_setting
def test_training_up_to_a_scale(setting: str) -> None:
    original, model = kept(setting)
    f, new = latents(model), model.quantize
    scales = len(new.v_patch_nums)
    assert new.prog_si == -1
    for last in range(-1, scales):
        original.prog_si = new.prog_si = last
        for to_fhat in (False, True):
            ours, theirs = (module.f_to_idxBl_or_fhat(f, to_fhat) for module in (new, original))
            assert len(ours) == len(theirs) == (last + 1 or scales)
        indices = original.f_to_idxBl_or_fhat(f, False)
        ours, theirs = (module.idxBl_to_var_input(indices) for module in (new, original))
        if last == 0:
            assert ours is None
            assert theirs is None
        else:
            close(ours, theirs)


def test_sizes_of_a_call() -> None:
    original, model = kept("two")
    f = torch.randn(2, WIDTH, 4, 6)
    for sizes in ([(1, 2), (2, 3), (4, 6)], [(2, 2), (4, 6)]):
        found = [module.f_to_idxBl_or_fhat(f, False, sizes) for module in (model.quantize, original)]
        for ours, theirs in zip(*found, strict=True):
            assert torch.equal(ours, theirs)
        found = [module.f_to_idxBl_or_fhat(f, True, sizes) for module in (model.quantize, original)]
        for ours, theirs in zip(*found, strict=True):
            close(ours, theirs)


@pytest.mark.parametrize("name", INSIDE)
def test_teacher_forcing_is_what_generation_reads(name: str) -> None:
    model = build("released")
    plug_in(model, name).eval()
    quantize, scales = model.quantize, len(RELEASED)
    indices = model.img_to_idxBl(images(model))
    assert [tokens.shape[1] for tokens in indices] == [side**2 for side in RELEASED]
    forced = quantize.idxBl_to_var_input(indices).split([side**2 for side in RELEASED[1:]], 1)
    f_hat = torch.zeros(2, quantize.Cvae, RELEASED[-1], RELEASED[-1])
    with torch.no_grad():
        for position, h in enumerate(model.vectors(indices)):
            f_hat, following = quantize.get_next_autoregressive_input(position, scales, f_hat, h)
            if position < scales - 1:
                close(following.flatten(2).mT, forced[position])
                assert not f_hat[:, quantize.quantizer.code_dim :].any()
        close(f_hat, quantize(model.encoder(images(model)))[0])
        close(f_hat, quantize.embed_to_fhat(model.vectors(indices), last_one=True))
        close(f_hat, quantize.f_to_idxBl_or_fhat(model.encoder(images(model)), to_fhat=True)[-1])


@pytest.mark.parametrize("name", INSIDE)
def test_trains(name: str) -> None:
    model = build("two")
    x = images(model)
    plug_in(model, name)
    assert len(model.quantize.quantizer.quantizers) == 1
    assert model.quantize.embedding.weight.shape == (model.quantize.vocab_size, WIDTH)
    assert isinstance(model.quantize.quantizer, VARQuantizer)

    def losses() -> tuple[Tensor, Tensor]:
        f_hat, _, loss = model.quantize(model.encoder(x))
        return functional.mse_loss(model.decoder(f_hat), x), loss

    loss_falls(model, losses)


def test_a_new_quantizer_is_like_the_models() -> None:
    for setting, options in SETTINGS.items():
        model = build(setting)
        original = model.quantize
        count = sum(isinstance(module, stand_in_var.Phi) for module in original.modules())
        for name in ("vq", "var"):
            quantizer = plug_in(model, name).quantize.quantizer
            assert quantizer.scale_sizes((options["v_patch_nums"][-1],) * 2) == [
                (side, side) for side in options["v_patch_nums"]
            ]
            assert quantizer.interpolation == "cubic"
            assert [blend.ratio for blend in quantizer.blends] == [abs(original.quant_resi_ratio)] * count
            assert model.quantize.using_znorm == original.using_znorm
            assert model.quantize.beta == quantizer.commitment_weight == original.beta
            assert model.quantize.vocab_size == quantizer.codebook_size == CODES


def test_the_scales_have_a_quantizer_of_a_name() -> None:
    model = build("two")
    quantizer = plug_in(model, "var", quantizer="fsq", levels=(4, 4), dropout=0.5).quantize.quantizer
    assert type(quantizer.components[0]) is quantizers.FSQ
    assert (quantizer.codebook_size, quantizer.dropout) == (16, 0.5)
    plug_in(model, "multiscale", quantizer="bsq")
    assert type(model.quantize.quantizer.components[0]) is BSQ
    assert type(model.quantize.quantizer) is quantizers.MultiScaleQuantizer
    model.quantize(latents(model))


def test_quantizers_that_are_built() -> None:
    model = build("two")

    def made(**options: Any) -> VARQuantizer:
        own = {"scales": (1 / 3, 1 / 2, 1), "axes": 2, "channel_dim": 1, **options}
        return VARQuantizer(WIDTH, [VectorQuantizer(WIDTH, CODES)] * len(own["scales"]), **own)

    own = made()
    assert plug_in(model, own).quantize.quantizer is own
    refused = {
        "has no scales, but this model expects 3": VectorQuantizer(WIDTH, CODES, channel_dim=1),
        "quantizer has 2 scales, but this model has 3": made(scales=(0.5, 1)),
        "has 1 axes, .*expected axes=2": made(axes=1),
        "codes of 8 channels, but the model adds up codes of images in 6 channels": VARQuantizer(
            WIDTH, [VectorQuantizer(8, CODES)] * 3, scales=(1 / 3, 1 / 2, 1), axes=2, channel_dim=1
        ),
    }
    for message, quantizer in refused.items():
        with pytest.raises(ValueError, match=message):
            plug_in(model, quantizer)
    assert model.quantize.quantizer is own


def test_a_module_that_does_not_say_its_sizes() -> None:
    """They are those of the quantizer's relative scales, or are assigned."""
    scales = (1 / 3, 1 / 2, 1)
    own = VARQuantizer(WIDTH, [VectorQuantizer(WIDTH, CODES)] * 3, scales=scales, axes=2, channel_dim=1)
    adapter = plug_in(nn.Sequential(nn.Identity()), own, at="0", contract="var")[0]
    indices = adapter.f_to_idxBl_or_fhat(torch.randn(2, WIDTH, 6, 6), to_fhat=False)
    assert [tokens.shape[1] for tokens in indices] == [4, 9, 36]
    assert adapter.idxBl_to_var_input(indices).shape == (2, 45, WIDTH)
    adapter.v_patch_nums = (1, 2, 6)
    indices = adapter.f_to_idxBl_or_fhat(torch.randn(2, WIDTH, 6, 6), to_fhat=False)
    assert [tokens.shape[1] for tokens in indices] == [1, 4, 36]
    with pytest.raises(ValueError, match="pass dim=, codebook_size=, scales="):
        plug_in(nn.Sequential(nn.Identity()), "vq", at="0", contract="var", dim=WIDTH, codebook_size=CODES)


def test_a_codebook_that_cannot_be_kept() -> None:
    model = build("two")
    own = model.quantize
    with pytest.raises(ValueError, match="cannot keep a codebook"):
        plug_in(model, "fsq", keep_codebook=True)
    for options in ({"shared": False}, {"interpolation": "linear"}, {"entry": nn.LayerNorm(WIDTH)}):
        with pytest.raises(ValueError, match=r"expected one quantizer for all scales, .* 2 BlendConvolutions"):
            plug_in(model, "var", keep_codebook=True, **options)
    scales = (1 / 3, 1 / 2, 1)
    plain = VARQuantizer(WIDTH, [VectorQuantizer(WIDTH, CODES)] * 3, scales=scales, axes=2, channel_dim=1)
    with pytest.raises(ValueError, match="2 BlendConvolutions, no entry"):
        plug_in(model, plain, keep_codebook=True)
    assert model.quantize is own
    assert torch.equal(take_codebook(model), own.embedding.weight)


def test_a_codebook_for_each_scale_cannot_be_looked_up() -> None:
    model = build("two")
    plug_in(model, "vq", shared=False)
    model.quantize(latents(model))
    with pytest.raises(ValueError, match=r"a codebook for each scale, .*expected one quantizer for all scales"):
        model.vectors(model.img_to_idxBl(images(model)))


def test_usages_count_the_codes_of_each_scale() -> None:
    model = build("two")
    plug_in(model, "vq", keep_codebook=True)
    f = latents(model, batch=20)
    _, usages, _ = model.quantize(f, ret_usages=True)
    least = 0.08 * 20 * 6 * 6 / CODES
    counts = [tokens.flatten().bincount(minlength=CODES) for tokens in model.quantize.f_to_idxBl_or_fhat(f, False)]
    assert usages == [100 * (count >= least).float().mean().item() for count in counts]
    assert 0 < usages[0] < 100


def test_quantizers_of_one_name_are_told_apart() -> None:
    taming, var = TamingQuantizer(WIDTH), build().quantize
    assert contract_of(taming) is contract_named("taming")
    assert contract_of(var) is contract_named("var")
    for module, other in ((taming, "var"), (var, "taming")):
        with pytest.raises(ValueError, match=f"contract '{other}' cannot read"):
            plug_in(nn.Sequential(module), "vq", contract=other)
    assert contract_of(stand_in_taming.VectorQuantizer(CODES, WIDTH, 0.25)) is not contract_named("var")


def test_an_original_that_is_not_supported() -> None:
    for options, message in (
        ({"v_patch_nums": (1, 4, 3)}, r"v_patch_nums=\(1, 4, 3\); expected sides of at least 1 that ascend"),
        ({"v_patch_nums": (1, 4)}, "4 convolutions for 2 scales; expected at most one per scale"),
    ):
        with pytest.raises(ValueError, match=message):
            plug_in(Model(**options), "vq")


def test_sizes_that_do_not_fit() -> None:
    _, model = kept("two")
    new = model.quantize
    with pytest.raises(ValueError, match=r"sizes end with \(6, 6\), expected x's size \(7, 7\)"):
        new(torch.randn(1, WIDTH, 7, 7))
    with pytest.raises(ValueError, match="got 4 sizes for 3 scales"):
        new.f_to_idxBl_or_fhat(torch.randn(1, WIDTH, 6, 6), False, (1, 2, 3, 6))
    with pytest.raises(ValueError, match="SN is 4, but the quantizer has 3 scales"):
        new.get_next_autoregressive_input(0, 4, latents(model), latents(model))
    with pytest.raises(ValueError, match="got the vectors of 1 scales, expected 3"):
        new.embed_to_fhat([latents(model)])


def test_the_published_state_fits() -> None:
    """The names and shapes in the file that VAR publishes, for its width and codes."""
    model = Model(**SETTINGS["released"])
    names = [f"quant_resi.qresi_ls.{position}" for position in range(4)]
    shapes = {"ema_vocab_hit_SV": (10, CODES), "embedding.weight": (CODES, WIDTH)}
    shapes |= {f"{name}.weight": (WIDTH, WIDTH, 3, 3) for name in names}
    shapes |= {f"{name}.bias": (WIDTH,) for name in names}
    assert {name: tuple(value.shape) for name, value in model.quantize.state_dict().items()} == shapes
    model.quantize.load_state_dict({name: torch.full(shape, 0.5) for name, shape in shapes.items()})
    plug_in(model, "vq", keep_codebook=True)
    for blend in model.quantize.quantizer.blends:
        assert (blend.convolution.weight == 0.5).all()
        assert (blend.convolution.bias == 0.5).all()
    assert model.quantize.ema_vocab_hit_SV.shape == (10, CODES)


def test_a_checkpoint_fills_a_model_without_values() -> None:
    _, trained = kept("two")
    f = latents(trained)
    with torch.device("meta"):
        model = plug_in(build("two"), "vq", keep_codebook=True)
    model.load_state_dict(trained.state_dict(), assign=True)
    for new, old in zip(model.quantize(f)[::2], trained.quantize(f)[::2], strict=True):
        assert torch.equal(new, old)


def test_compiles() -> None:
    _, model = kept("released")
    compiled = torch.compile(model.quantize, backend="eager", fullgraph=True)
    f = latents(model)
    for new, old in zip(compiled(f)[::2], model.quantize(f)[::2], strict=True):
        assert torch.equal(new, old)


def test_half_precision() -> None:
    model = build("two")
    plug_in(model, "vq").to(torch.bfloat16)
    f = latents(model).bfloat16()
    indices = model.quantize.f_to_idxBl_or_fhat(f, False)
    values = [
        model.quantize(f)[0],
        *model.quantize.f_to_idxBl_or_fhat(f, True),
        *model.quantize.embed_to_fhat(model.vectors(indices)),
        model.quantize.idxBl_to_var_input(indices),
    ]
    assert {value.dtype for value in values} == {torch.bfloat16}


def test_unplug_puts_back_what_stood_there() -> None:
    model = build("two")
    x = images(model)
    check_unplugs(model, "quantize", lambda: model.quantize(model.encoder(x))[0])
    assert not plugged(model)
