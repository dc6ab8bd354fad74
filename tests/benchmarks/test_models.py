"""The autoencoders of the chain: what each promises of shapes, codes, losses and samples."""

import copy
import math
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.utils._pytree import tree_leaves

import quantizers
from benchmarks import digits
from benchmarks.aids import Aids
from benchmarks.autoencoder import make_decoder as benchmarked_decoder
from benchmarks.autoencoder import make_encoder as benchmarked_encoder
from benchmarks.errors import InputError
from benchmarks.models.autoencoder import Autoencoder, Gaussian
from benchmarks.models.code_maps import decode as from_codes
from benchmarks.models.convolutions import Residual, make_decoder, make_encoder
from benchmarks.models.fitting import fit
from benchmarks.models.latent_samples import compare, nearest_distance
from benchmarks.models.vae import VAE, Posterior
from benchmarks.models.vqvae import VQVAE
from benchmarks.models.vqvae2 import VQVAE2
from benchmarks.variants import CORE
from tests.cases import assert_same_state, normal, rounding_tolerance, state_of
from tests.effort import examples

SIZES = {"width": 4, "downsampling": 2}
COMPOSED = ["residual:num_quantizers=2", "grouped", "multihead"]
VARIANTS = [*CORE, *COMPOSED]
every_variant = pytest.mark.parametrize("variant", VARIANTS)
every_model = pytest.mark.parametrize("name", ["autoencoder", "vae", "vqvae", "vqvae2"])


def images(*shape: int, seed: int = 0) -> Tensor:
    return normal(seed, *shape, dtype=torch.float32).clamp(-1, 1)


def vqvae(variant: str = "simvq", **sizes: int) -> VQVAE:
    return VQVAE.named(variant, dim=4, codebook_size=16, **{**SIZES, **sizes}).eval()


def vqvae2(top: str = "simvq", bottom: str = "ema_vq", **sizes: int) -> VQVAE2:
    return VQVAE2.named(top, bottom, dim=4, codebook_size=16, **{**SIZES, **sizes}).eval()


@torch.no_grad()
def spread(encoder: nn.Sequential, model: nn.Module, given_images: Tensor) -> None:
    """What an untrained encoder gives lies close together: standardised, so that its vectors get several codes."""
    seen: list[Tensor] = []
    hook = encoder.register_forward_hook(lambda _module, _inputs, vectors: seen.append(vectors))
    model(given_images)
    hook.remove()
    deviation, mean = torch.std_mean(seen[0], (0, 2, 3))
    encoder[-1].weight /= deviation[:, None, None, None]
    encoder[-1].bias.sub_(mean).div_(deviation)


def built(name: str, channels: int, downsampling: int) -> tuple[torch.nn.Module, int]:
    """A model by name, and what its images' sides must be multiples of."""
    sizes = {"channels": channels, "width": 4, "downsampling": downsampling}
    if name == "vqvae2":
        return vqvae2(**sizes), 2 * downsampling
    if name == "vqvae":
        return vqvae(**sizes), downsampling
    return {"autoencoder": Autoencoder, "vae": VAE}[name](dim=4, **sizes), downsampling


@every_model
@given(
    halvings=st.integers(1, 3),
    channels=st.integers(1, 4),
    count=st.integers(0, 2),
    height=st.integers(1, 3),
    width=st.integers(1, 3),
)
def test_images_of_any_fitting_sides_come_back_in_their_shape(name, halvings, channels, count, height, width):
    model, multiple = built(name, channels, 2**halvings)
    given_images = images(count, channels, height * multiple, width * multiple)
    out = model.eval()(given_images)
    assert out.images.shape == given_images.shape
    assert (out.loss.shape, out.loss.dtype) == ((), torch.float32)
    assert count == 0 or out.loss.isfinite()
    below = (count, height * multiple // 2**halvings, width * multiple // 2**halvings)
    if name == "vqvae":
        assert out.codes.shape == (*below, 1)
    if name == "vqvae2":
        assert out.codes.bottom.shape == (*below, 1)
        assert out.codes.top.shape == (count, below[1] // 2, below[2] // 2, 1)


@every_model
def test_images_that_do_not_fit_are_named(name):
    model, multiple = built(name, 3, 4)
    with pytest.raises(InputError, match=rf"images are {multiple}×{multiple + 2}, .* multiples of {multiple} pix"):
        model(images(1, 3, multiple + 2, multiple))
    with pytest.raises(InputError, match=r"images have shape \(1, 1, 16, 16\), expected \[B, 3, H, W\]"):
        model(images(1, 1, 16, 16))
    with pytest.raises(InputError, match=r"images have shape \(3, 16, 16\)"):
        model(images(3, 16, 16))
    with pytest.raises(InputError, match="images are 16×0"):
        model(images(1, 3, 0, 16))
    with pytest.raises(InputError, match=r"images are torch\.uint8, expected a floating tensor"):
        model(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))


def test_sizes_that_cannot_be_are_named():
    with pytest.raises(ValueError, match="downsampling is 6, expected a power of two"):
        make_encoder(3, 4, width=4, downsampling=6)
    with pytest.raises(ValueError, match="downsampling is 1, expected an integer of at least 2"):
        make_decoder(4, 3, width=4, downsampling=1)
    with pytest.raises(ValueError, match="channels is 0"):
        Autoencoder(0)
    with pytest.raises(ValueError, match="noise is 0, expected a standard deviation above 0"):
        VAE(noise=0)


def test_the_benchmarks_layers_and_draws_are_what_its_numbers_were_measured_with():
    torch.manual_seed(3)
    encoder, decoder = benchmarked_encoder(8), benchmarked_decoder(8)
    torch.manual_seed(3)
    expected_encoder = nn.Sequential(
        nn.Conv2d(3, 32, 4, stride=2, padding=1),
        nn.SiLU(),
        nn.Conv2d(32, 64, 4, stride=2, padding=1),
        Residual(64),
        nn.SiLU(),
        nn.Conv2d(64, 8, 1),
    )
    expected_decoder = nn.Sequential(
        nn.Conv2d(8, 64, 3, padding=1),
        Residual(64),
        nn.SiLU(),
        nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1),
        nn.SiLU(),
        nn.ConvTranspose2d(32, 3, 4, stride=2, padding=1),
    )
    for made, expected in ((encoder, expected_encoder), (decoder, expected_decoder)):
        assert str(made) == str(expected)
        assert_same_state(state_of(made), state_of(expected))


def bounded(module: nn.Module, x: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
    """The output, and how far two computations of it lie apart whose inputs lie within `error` of each other.

    A sum of n products passes |weights| · error on, and in two orders of summation differs by at most
    2(n + 1)ε Σ|terms|; SiLU has slopes below 1.1 and, of four operations, ends within 8ε of its value.
    """
    eps = torch.finfo(x.dtype).eps
    if isinstance(module, nn.Sequential):
        for layer in module:
            x, error = bounded(layer, x, error)
        return x, error
    y = module(x)
    if isinstance(module, Residual):
        return y, error + bounded(module.body, x, error)[1] + 2 * eps * y.abs()
    if isinstance(module, nn.SiLU):
        return y, 1.1 * error + 8 * eps * y.abs()
    absolute = copy.deepcopy(module)
    absolute.weight.data.abs_()
    absolute.bias.data.abs_()
    terms = absolute(x.abs())
    absolute.bias.data.zero_()
    products = module.weight[0].numel() * module.weight.shape[0]  # at least as many as are in one sum
    return y, absolute(error) + 2 * (products + 1) * eps * terms


@torch.no_grad()
def assert_same_images(decoded: Tensor, images: Tensor, decoder: nn.Module, *parts: tuple[Tensor, float]) -> None:
    """Equal up to the roundings of `decoder` on the channels of `parts`: vectors, and how far they may be off."""
    x = torch.cat([vectors for vectors, _ in parts], 1)
    error = torch.cat([torch.full_like(vectors, tolerance) for vectors, tolerance in parts], 1)
    tolerance = bounded(decoder, x, error)[1]
    assert tolerance.max() < 1e-2  # else it would say nothing: the images are of the order of 1
    assert ((decoded - images).abs() <= tolerance).all()


def test_a_residual_block_adds_to_what_it_gets():
    block, x = Residual(4), images(2, 4, 3, 3)
    assert torch.equal(block(x), x + block.body(x))


@every_variant
def test_decode_of_encode_is_the_reconstruction(variant):
    model = vqvae(variant)
    given_images = images(3, 3, 8, 12)
    spread(model.encoder, model, given_images)
    out, codes = model(given_images), model.encode(given_images)
    assert codes.dtype == torch.int64
    assert codes.shape == (3, 4, 6, len(model.sizes))
    assert torch.equal(codes, out.codes)
    assert all(len(codes[..., c].unique()) > 1 for c in range(len(model.sizes)))
    vectors = model.quantizer(model.encoder(given_images)).quantized
    part = (vectors, rounding_tolerance(model.quantizer))
    assert_same_images(model.decode(codes), out.images, model.decoder, part)


@every_variant
def test_decode_of_both_levels_codes_is_the_reconstruction(variant):
    """The bottom's codes could differ where rounding of the top's vectors breaks a tie: these images have none."""
    model = vqvae2(top=variant, bottom=VARIANTS[-VARIANTS.index(variant)])
    given_images = images(3, 3, 8, 12)
    spread(model.top_encoder, model, given_images)
    spread(model.bottom_encoder, model, given_images)
    out, codes = model(given_images), model.encode(given_images)
    for level, expected, sizes, grid in zip(codes, out.codes, model.sizes, ((2, 3), (4, 6)), strict=True):
        assert torch.equal(level, expected)
        assert level.shape == (3, *grid, len(sizes))
        assert all(len(level[..., c].unique()) > 1 for c in range(len(sizes)))
    top = from_codes(codes.top, model.top_quantizer)
    above = torch.full_like(top, rounding_tolerance(model.top_quantizer))
    with torch.no_grad():
        upsampled, error = bounded(model.top_upsampling, top, above)
    bottom = from_codes(codes.bottom, model.bottom_quantizer)
    parts = ((upsampled, float(error.max())), (bottom, rounding_tolerance(model.bottom_quantizer)))
    assert_same_images(model.decode(codes), out.images, model.decoder, *parts)


def test_an_instance_is_taken_as_it_is():
    quantizer = quantizers.create("fsq", dim=3, levels=(3, 5), channel_dim=1)
    model = VQVAE(quantizer, **SIZES)
    assert model.quantizer is quantizer
    assert model.sizes == (15,)
    residual = quantizers.ResidualQuantizer(4, [quantizers.create("vq", dim=4, codebook_size=k) for k in (8, 5)])
    residual.channel_dim = 1
    assert VQVAE2(residual, quantizer, **SIZES).sizes == ((8, 5), (15,))


def test_quantizers_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="quantizer is Identity, which has no codes"):
        vqvae("none")
    with pytest.raises(ValueError, match="bottom is MultiScaleQuantizer, whose codes belong to a pyramid"):
        vqvae2(bottom="multiscale")
    with pytest.raises(ValueError, match="top has channel_dim=-1, expected 1"):
        VQVAE2(quantizers.create("vq", dim=4, codebook_size=8), vqvae().quantizer)
    with pytest.raises(TypeError, match="quantizer is str, expected a Quantizer"):
        VQVAE("vq")


def test_codes_that_do_not_fit_are_named():
    model, codes = vqvae("grouped"), torch.zeros(2, 3, 4, 2, dtype=torch.int64)
    for code in (-1, 16):
        foreign = codes.clone()
        foreign[1, 2, 0, 1] = code
        with pytest.raises(InputError, match=rf"codes hold {code} in codebook 1.*expected 0 to 15"):
            model.decode(foreign)
    with pytest.raises(InputError, match=r"codes have shape \(2, 3, 4\), expected \[B, h, w, 2\]"):
        model.decode(codes[..., 0])
    with pytest.raises(InputError, match=r"codes have dtype torch\.int32"):
        model.decode(codes.int())


def test_codes_of_two_levels_that_do_not_fit_are_named():
    model = vqvae2()
    top, bottom = model.encode(images(2, 3, 8, 12))
    for codes, message in (
        ((top - 17, bottom), "top codes hold -"),
        ((top, bottom + 16), "bottom codes hold .* expected 0 to 15"),
        ((top, bottom[:, :, :4]), "bottom codes are 2 grids of 4 × 4, expected 2 of 4 × 6"),
        ((top[:1], bottom), "bottom codes are 2 grids of 4 × 6, expected 1 of 4 × 6"),
    ):
        with pytest.raises(InputError, match=message):
            model.decode(codes)


def test_an_image_that_is_not_finite_has_no_codes_and_the_others_keep_theirs():
    given_images = images(2, 3, 8, 8)
    for model in (vqvae(), vqvae2()):
        clean, codes = (
            model.encode(given_images),
            model.encode(given_images.index_fill(0, torch.tensor(1), math.nan)),
        )
        for expected, level in zip(tree_leaves(clean), tree_leaves(codes), strict=True):
            assert torch.equal(level[0], expected[0])
            assert (level[1] == -1).all()
        with pytest.raises(InputError, match="-1, which marks a vector without a code"):
            model.decode(codes)


def test_the_bottom_level_is_encoded_given_the_top_levels_codes():
    model = vqvae2(top="vq", bottom="vq").train()
    seen: list[Tensor] = []
    model.bottom_quantizer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    given_images = images(2, 3, 8, 8)
    model(given_images)
    (gradient,) = torch.autograd.grad(seen[0].square().sum(), model.top_encoder[-1].weight)
    assert gradient.abs().max() > 0
    with torch.no_grad():
        model.top_quantizer.embedding += 1
    model(given_images)
    assert not torch.equal(seen[0], seen[1])
    spread(model.bottom_encoder, model, given_images)
    before = model.encode(given_images)
    with torch.no_grad():
        model.top_quantizer.embedding *= -9
    after = model.encode(given_images)
    assert (after.bottom != before.bottom).any()


def test_each_top_code_changes_the_image_around_it_and_nothing_far_away():
    model = vqvae2()
    top, bottom = model.encode(images(1, 3, 64, 64))
    before = model.decode((top, bottom))
    for row, column in ((0, 0), (7, 9), (15, 15)):
        other = top.clone()
        other[0, row, column] = (other[0, row, column] + 1) % 16
        changed = (model.decode((other, bottom)) != before).any(1)[0]
        under = changed[4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        assert under.all()
        changed[max(0, 4 * row - 16) : 4 * row + 20, max(0, 4 * column - 16) : 4 * column + 20] = False
        assert not changed.any()


def test_the_loss_is_that_of_all_quantizers():
    losses: list[Tensor] = []
    for model, count in ((vqvae("vq"), 1), (vqvae2(top="vq", bottom="vq"), 2)):
        for module in model.children():
            if isinstance(module, quantizers.Quantizer):
                module.register_forward_hook(lambda _module, _inputs, out: losses.append(out.loss))
        out = model(images(2, 3, 8, 8))
        assert len(losses) == count
        assert min(losses) > 0
        assert torch.equal(out.loss, sum(losses))
        losses.clear()


@every_model
def test_a_state_dict_is_the_whole_model(name):
    model, multiple = built(name, 3, 2)
    given_images = images(4, 3, 2 * multiple, multiple)
    fit(model, iter([given_images] * 3), steps=3, learning_rate=1e-2)
    torch.manual_seed(1)
    other, _ = built(name, 3, 2)
    assert not torch.equal(other.eval()(given_images).images, model(given_images).images)
    other.load_state_dict(model.state_dict())
    outputs = tree_leaves(other(given_images)), tree_leaves(model(given_images))
    for a, b in zip(*outputs, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["residual:quantizer=ema_vq:num_quantizers=2", "grouped:quantizer=ema_vq"])
def test_training_moves_every_parameter_and_makes_the_error_smaller(name):
    model = vqvae2(top=name, bottom=name).train()
    given_images = images(8, 3, 8, 8)
    before, parameters = model.eval()(given_images), state_of(model)
    fit(model, iter([given_images] * 30), steps=30, learning_rate=1e-2)
    assert not model.training
    assert (model(given_images).images - given_images).square().mean() < (
        before.images - given_images
    ).square().mean()
    assert [
        key for key, _ in model.named_parameters() if torch.equal(parameters[key], model.state_dict()[key])
    ] == []


def test_fit_is_adam_on_error_plus_loss_at_a_rate_that_falls_at_the_end():
    given_images, model = images(4, 3, 8, 8), vqvae("vq")
    expected = copy.deepcopy(model).train()
    fit(model, iter([given_images] * 8), steps=8, learning_rate=1e-2)
    optimizer = torch.optim.Adam(expected.parameters())
    for rate in (1, 1, 1, 1, 1, 1, 1, 0.5):  # the last quarter: from 1 towards 0
        optimizer.param_groups[0]["lr"] = 1e-2 * rate
        out = expected(given_images)
        optimizer.zero_grad()
        (nn.functional.mse_loss(out.images, given_images) + out.loss).backward()
        optimizer.step()
    assert_same_state(state_of(model), state_of(expected))


def test_fit_does_what_the_variant_asks_for_beside_its_options():
    """Of codes that no vector is near, a warm start brings all into use before the first step."""
    given_images = images(8, 3, 8, 8)
    steps: list[int] = []

    class Counted(Aids):
        def replacement(self, model, optimizer):
            aid = super().replacement(model, optimizer)
            aid.step = lambda step=aid.step: steps.append(1) or step()
            return aid

    model = vqvae("vq")
    with torch.no_grad():
        model.quantizer.embedding += 100
    aids = Counted(warm_start=True, replace="dead")
    fit(model, iter([given_images] * 16), steps=3, learning_rate=1e-4, aids=aids)
    assert len(model.encode(given_images).unique()) > 8
    assert len(steps) == 3


def test_fit_lets_the_temperature_fall_as_the_variant_asks():
    model = vqvae("gumbel")
    fit(model, iter([images(2, 3, 8, 8)] * 2), steps=2, learning_rate=1e-4, aids=Aids(anneal=(1.0, 0.25)))
    assert float(model.quantizer.temperature) == 0.25


posteriors = st.tuples(st.integers(0, 2**16), st.floats(0, 3), st.floats(-8, 4))


@given(posteriors)
def test_kl_is_that_of_torch_distributions(drawn):
    """Each of the N terms ends within 8ε of the sum of its parts' sizes, and their sum rounds N times."""
    seed, scale, centre = drawn
    mean, log_variance = scale * normal(seed, 3, 4, 2, 5), centre + normal(seed + 1, 3, 4, 2, 5)
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(torch.zeros(()), torch.ones(())))
    parts = (mean.square() + log_variance.exp() + 1 + log_variance.abs()).flatten(1).sum(1)
    kl = Posterior(mean, log_variance).kl()
    assert kl.shape == (3,)
    assert ((kl - expected.flatten(1).sum(1)).abs() <= (8 + 40) * torch.finfo(mean.dtype).eps * parts).all()


@given(posteriors)
@examples(5)
def test_kl_is_the_mean_of_ln_q_minus_ln_p(drawn):
    """Within six standard errors of 4000 draws: one search in 10⁸ fails by chance."""
    seed, scale, centre = drawn
    mean, log_variance = scale * normal(seed, 1, 6, 1, 1), centre + normal(seed + 1, 1, 6, 1, 1)
    posterior = Posterior(mean.expand(4000, -1, -1, -1), log_variance.expand(4000, -1, -1, -1))
    z = posterior.sample(torch.Generator().manual_seed(seed))
    q = Normal(mean, (log_variance / 2).exp())
    drawn_kl = (q.log_prob(z) - Normal(0.0, 1.0).log_prob(z)).flatten(1).sum(1)
    standard_error = drawn_kl.std() / len(drawn_kl) ** 0.5
    assert abs(drawn_kl.mean() - Posterior(mean, log_variance).kl()) <= 6 * standard_error


def test_a_draw_passes_gradients_to_mean_and_log_variance():
    def draw(mean: Tensor, log_variance: Tensor) -> Tensor:
        return Posterior(mean, log_variance).sample(torch.Generator().manual_seed(0))

    mean, log_variance = normal(0, 2, 3, 1, 2).requires_grad_(), normal(1, 2, 3, 1, 2).requires_grad_()
    assert torch.autograd.gradcheck(draw, (mean, log_variance))
    z = draw(mean, log_variance)
    z.sum().backward()
    assert torch.equal(mean.grad, torch.ones_like(mean))
    torch.testing.assert_close(log_variance.grad, (z - mean).detach() / 2)


def test_error_and_loss_of_the_vae_are_its_negative_elbo():
    model = VAE(dim=4, noise=0.3, **SIZES).double().train()
    given_images = images(5, 3, 4, 6).double()
    out = model(given_images, torch.Generator().manual_seed(0))
    size, scale = given_images[0].numel(), 2 * 0.3**2
    likelihood = Normal(out.images, 0.3).log_prob(given_images).flatten(1).sum(1)
    constant = size / 2 * math.log(math.pi * scale)
    total = (out.images - given_images).square().mean() + out.loss
    torch.testing.assert_close(size / scale * total + constant, (out.kl - likelihood).mean())


def test_the_vae_draws_in_training_and_by_its_generator():
    model, given_images = VAE(dim=4, **SIZES), images(2, 3, 4, 4)
    first, second = (model(given_images, torch.Generator().manual_seed(seed)).images for seed in (0, 1))
    assert not torch.equal(first, second)
    assert torch.equal(first, model(given_images, torch.Generator().manual_seed(0)).images)
    model.eval()
    assert torch.equal(model(given_images).images, model.decode(model.encode(given_images).mean))


def test_samples_of_the_vae_are_decoded_normal_numbers():
    model = VAE(2, dim=4, **SIZES)
    model.decoder = nn.Identity()
    z = model.sample(4000, (2, 3), torch.Generator().manual_seed(0))
    assert z.shape == (4000, 4, 2, 3)
    vectors = z.flatten(1)
    assert_normal(vectors, torch.zeros(24), torch.eye(24))


def assert_normal(vectors: Tensor, mean: Tensor, covariance: Tensor) -> None:
    """Mean and covariance of N vectors within six standard errors: (Σ_ii Σ_jj + Σ_ij²) / N is the variance of
    the covariance's entry of i and j."""
    variances = covariance.diagonal()
    assert ((vectors.mean(0) - mean).abs() <= 6 * (variances / len(vectors)).sqrt() + 1e-6).all()
    spread = (variances[:, None] * variances + covariance.square()) / len(vectors)
    assert ((vectors.T.cov() - covariance).abs() <= 6 * spread.sqrt() + 1e-6).all()


def test_the_gaussian_of_the_latents_has_their_mean_and_covariance_at_each_position():
    latents = normal(0, 50, 3, 2, 2)
    latents[:, 2] = latents[:, 0] - latents[:, 1]  # a covariance without an inverse
    latents[..., 1] *= 5
    gaussian = Gaussian.fit(latents)
    drawn = gaussian.sample(4000, torch.Generator().manual_seed(0))
    assert drawn.shape == (4000, 3, 2, 2)
    covariance = torch.zeros(3, 2, 2, 3, 2, 2, dtype=torch.float64)
    for row in range(2):
        for column in range(2):  # between positions: none
            covariance[:, row, column, :, row, column] = latents[:, :, row, column].T.cov()
    assert_normal(drawn.flatten(1), latents.mean(0).flatten(), covariance.reshape(12, 12))
    with pytest.raises(InputError, match="got 1 images, expected at least 2"):
        Gaussian.fit(latents[:1])


def test_samples_of_the_autoencoder_are_those_of_its_latents_gaussian():
    model, data = Autoencoder(dim=4, **SIZES), images(9, 3, 4, 6)
    sampled = model.sample(5, data, torch.Generator().manual_seed(0))
    latents = Gaussian.fit(model.encode(data)).sample(5, torch.Generator().manual_seed(0))
    assert torch.equal(sampled, model.decode(latents))
    assert sampled.shape == (5, 3, 4, 6)


def test_digits_are_split_without_loss():
    (train, train_labels), (held_out, held_out_labels) = digits.load()
    stored = load_digits()
    assert (train.dtype, train_labels.dtype, train.shape) == (torch.float32, torch.int64, (1500, 1, 8, 8))
    both, labels = torch.cat([train, held_out]), torch.cat([train_labels, held_out_labels])
    assert (float(both.min()), float(both.max())) == (-1.0, 1.0)
    found = sorted((*image, label) for image, label in zip(both.flatten(1).tolist(), labels.tolist(), strict=True))
    expected = (stored.data / 8 - 1).tolist()
    assert found == sorted((*image, label) for image, label in zip(expected, stored.target.tolist(), strict=True))
    assert held_out_labels.unique().tolist() == list(range(10))
    assert torch.equal(held_out, digits.load()[1].images)


def test_digits_without_scikit_learn_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"pip install quantizers-torch\[bench\]"):
        digits.load()


def test_batches_of_digits_depend_on_the_seed_alone():
    numbers = torch.arange(100)
    first, second, third = (digits.training_batches(numbers, 50, seed) for seed in (0, 0, 1))
    batch = next(first)
    assert torch.equal(batch, next(second))
    assert not torch.equal(batch, next(third))
    assert not torch.equal(batch, next(first))


def test_nearest_distance_is_the_root_mean_square_to_the_nearest():
    among = torch.stack([torch.zeros(1, 2, 2), torch.full((1, 2, 2), 3.0)])
    given_images = torch.tensor([[[[1.0, 1, 1, 1]]], [[[3.0, 3, 3, 1]]], [[[3.0, 3, 3, 3]]]]).view(3, 1, 2, 2)
    assert nearest_distance(given_images, among).tolist() == [1, 1, 0]


def test_what_is_drawn_from_an_autoencoders_latents_is_farther_from_data_than_a_vaes_samples():
    """By three standard errors of the difference of two means; after a longer training by more."""
    samples = compare(*digits.load(), steps=300, width=16)
    assert [len(drawn.images) for drawn in samples.values()] == [digits.HELD_OUT] * 4
    near = samples["VAE"].to_data
    for name in ("autoencoder, N(0, I)", "autoencoder, Gaussian"):
        far = samples[name].to_data
        assert far.mean() - near.mean() > 3 * ((far.var() + near.var()) / len(near)).sqrt()
    assert samples["data"].to_data.mean() < near.mean()
