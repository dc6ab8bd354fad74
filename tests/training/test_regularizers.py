"""Losses beside a codebook's own: each against its equation written out, and at the data that breaks it."""

import copy
import math
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

import quantizers
from quantizers.training.regularizers import (
    Entropy,
    Orthogonality,
    Regularizer,
    Wasserstein,
    entropy_loss,
    orthogonality_loss,
    wasserstein_loss,
)
from tests.cases import batch, normal
from tests.effort import examples

EPS = torch.finfo(torch.float64).eps
seeds = st.integers(0, 2**31)
ALL = [Orthogonality(10.0), Entropy(0.1), Wasserstein(0.5), Wasserstein(0.5, moves="codes")]
every_regularizer = pytest.mark.parametrize("regularizer", ALL, ids=repr)


def everything(rows: int) -> Tensor:
    return torch.ones(rows, dtype=torch.bool)


# Orthogonality


@given(seed=seeds, size=st.integers(1, 40), dim=st.integers(1, 12), scale=st.sampled_from([1e-20, 1.0, 1e20]))
def test_orthogonality_is_the_paper_s_over_k_by_k(seed: int, size: int, dim: int, scale: float) -> None:
    codes = scale * normal(seed, size, dim)
    matrices = []
    for loss in (
        orthogonality_loss,
        lambda e: (F.normalize(e, eps=0.0) @ F.normalize(e, eps=0.0).T - torch.eye(size)).square().sum() / size**2,
    ):
        codes = codes.detach().requires_grad_()
        value = loss(codes)
        matrices.append((value.detach(), torch.autograd.grad(value, codes)[0] * scale))
    # Terms of at most 1 each (a sum over K² of squared cosines, divided by K²), of products of D.
    for a, b in zip(*matrices, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=64 * (size + dim) * EPS)


def test_orthogonality_of_a_frame_is_known() -> None:
    """0 for K ≤ D right angles; the least there is, 1/D − 1/K, for D axes K/D times over; 1 − 1/K for equals."""
    axes = torch.eye(6)
    assert orthogonality_loss(3 * axes[:4]).abs() < 1e-7
    assert orthogonality_loss(axes.repeat(5, 1)).item() == pytest.approx(1 / 6 - 1 / 30, rel=1e-6)
    assert orthogonality_loss(axes[:1].repeat(8, 1)).item() == pytest.approx(1 - 1 / 8, rel=1e-6)


def test_orthogonality_of_a_hundred_thousand_codes() -> None:
    """E cos² = 1/D off the diagonal: about 1/D, where K × K would take 64 GiB. Its deviation is about 1/K."""
    assert orthogonality_loss(batch(2**17)).item() == pytest.approx(1 / 4, rel=1e-3)


# Entropy


def plain_entropy(z: Tensor, codes: Tensor, valid: Tensor, temperature: float, diversity: float) -> Tensor:
    log_p = (-(z[valid][:, None] - codes).square().sum(-1) / temperature).log_softmax(-1)
    log_mean = log_p.logsumexp(0) - math.log(int(valid.sum()))
    each = -(log_p.exp() * log_p).sum(-1).mean()
    return each + diversity * (log_mean.exp() * log_mean).sum()


@given(
    seed=seeds,
    valid=st.lists(st.booleans(), min_size=1, max_size=12).filter(any).map(torch.tensor),
    size=st.integers(1, 20),
    temperature=st.sampled_from([1e-3, 0.01, 0.3, 5.0]),
    diversity=st.sampled_from([0.0, 1.0, 2.5]),
    spread=st.sampled_from([0.1, 1.0, 30.0]),
    offset=st.sampled_from([0.0, 1000.0]),
)
def test_entropy_is_that_of_a_softmax_written_out(
    seed: int, valid: Tensor, size: int, temperature: float, diversity: float, spread: float, offset: float
) -> None:
    """Value and both gradients; with codes far apart, where p̄ underflows, as with codes that are all alike."""
    z = (normal(seed, len(valid), 3) + offset).where(valid[:, None], 0.0)
    codes = spread * normal(seed + 1, size, 3) + offset
    found = []
    for loss in (entropy_loss, plain_entropy):
        inputs = [z.detach().clone().requires_grad_(), codes.detach().clone().requires_grad_()]
        value = loss(*inputs, valid, temperature, diversity)
        found.append([value.detach(), *torch.autograd.grad(value, inputs)])
    # A logit is a sum of products up to L = (‖z‖ + ‖e‖)²/T away from its offset, and offsets cost 1000 EPS of ‖z‖;
    # p moves by as much as its logits, the loss by that times log p, at most about log K + L p: twenty of them.
    reach = float((codes - codes.mean(0)).norm(dim=-1).max() + (z[valid] - codes.mean(0)).norm(dim=-1).max())
    logit_error = 8 * EPS * (reach**2 + offset * reach) / temperature
    absolute = 20 * logit_error * (1 + math.log(size)) + 1e-13
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-12, atol=absolute)
    for a, b in zip(found[0][1:], found[1][1:], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=absolute * 2 * reach / temperature)


def test_entropy_has_a_gradient_at_any_size() -> None:
    """Eight vectors amid 2¹⁷ codes, each of about 10⁻⁵ or less: against the plain softmax."""
    z, codes, valid = 0.1 * normal(0, 8, 2), normal(1, 2**17, 2), everything(8)
    found = []
    for loss in (entropy_loss, plain_entropy):
        inputs = [z.clone().requires_grad_(), codes.clone().requires_grad_()]
        value = loss(*inputs, valid, 2.0, 3.0)
        found.append([value.detach(), *torch.autograd.grad(value, inputs)])
    assert (codes.shape[0] * found[1][2].norm(dim=-1)).mean() > 0.1  # what a clamp at 10⁻⁵ would make zero
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-12)


def test_entropy_is_bounded_by_its_extremes() -> None:
    """Vectors at K codes far apart: 0 − log K. All vectors between all codes: log K − log K. At one code: 0."""
    codes, valid = 10 * torch.eye(4), everything(8)
    assert entropy_loss(codes.repeat(2, 1), codes, valid).item() == pytest.approx(-math.log(4), rel=1e-6)
    assert entropy_loss(torch.zeros(8, 4), codes, valid).item() == pytest.approx(0.0, abs=1e-6)
    assert entropy_loss(codes[:1].repeat(8, 1), codes, valid).item() == pytest.approx(0.0, abs=1e-6)
    assert entropy_loss(codes[:1], codes, valid[:1], diversity=0.0).item() == pytest.approx(0.0, abs=1e-6)


# Wasserstein


def plain_wasserstein(z: Tensor, codes: Tensor) -> Tensor:
    """By eigenvalues: those of Σ_z Σ_e are those of the matrix under the paper's root. For full rank only."""
    covariances = [torch.cov(part.T, correction=0).view(z.shape[1], -1) for part in (z, codes)]
    roots = torch.linalg.eigvals(covariances[0] @ covariances[1]).real.clamp(min=0).sqrt().sum()
    trace = sum(covariance.diagonal().sum() for covariance in covariances)
    return ((z.mean(0) - codes.mean(0)).square().sum() + trace - 2 * roots).sqrt()


@given(seed=seeds, dim=st.integers(1, 5), shift=st.sampled_from([0.0, 1.0, 100.0]), scale=st.floats(-15, 15))
def test_wasserstein_is_the_paper_s_closed_form_and_symmetric(
    seed: int, dim: int, shift: float, scale: float
) -> None:
    unit = 10.0**scale
    z, codes = unit * (normal(seed, 40, dim) + shift), unit * 0.5 * normal(seed + 1, 30, dim)
    loss = wasserstein_loss(z, codes, everything(40))
    # Σ is moved by 10⁻¹² of its trace; its smallest eigenvalue here may be a thousandth of that, and the
    # distance a tenth of its root.
    torch.testing.assert_close(loss, plain_wasserstein(z, codes), rtol=1e-9, atol=0)
    torch.testing.assert_close(loss, wasserstein_loss(codes, z, everything(30)), rtol=1e-9, atol=0)


@given(seed=seeds, scales=st.lists(st.floats(0, 10), min_size=1, max_size=6))
def test_wasserstein_of_scaled_axes_is_the_difference_of_deviations(seed: int, scales: list[float]) -> None:
    """Σ_z and Σ_e = C Σ_z C commute for diagonal Σ_z: √(‖Δμ‖² + Σ_i (σ_i − c_i σ_i)²), also where c_i is zero."""
    dim = len(scales)
    shift = normal(seed, dim)
    z = torch.cat([torch.eye(dim), -torch.eye(dim)]).double()  # variance 1/D along each axis
    scale = torch.tensor(scales, dtype=torch.float64)
    loss = wasserstein_loss(z, scale * z + shift, everything(2 * dim))
    expected = (shift.square().sum() + (1 - scale).square().sum() / dim).sqrt()
    # The ridge makes √(λ + r) of √λ: for a code's axis of variance zero 10⁻⁶ of the total, for each of D axes.
    spread = float((1 + scale.square()).sum() / dim) ** 0.5
    torch.testing.assert_close(loss, expected, rtol=0, atol=2e-3 * spread if expected < 1e-3 * spread else
                               2e-6 * dim * spread**2 / float(expected))  # fmt: skip


PLANE = torch.tensor([1, 1, 0, 0])
DEGENERATE = {
    "generic": (normal(0, 30, 4), normal(1, 20, 4)),
    "fewer vectors than channels": (normal(0, 2, 4), normal(1, 20, 4)),
    "one vector": (normal(0, 1, 4), normal(1, 20, 4)),
    "one of each": (normal(0, 1, 4), normal(1, 1, 4)),
    "vectors all equal": (normal(0, 1, 4).repeat(30, 1) + 1e6, normal(1, 20, 4)),
    "codes all equal": (normal(0, 30, 4), normal(1, 1, 4).repeat(20, 1)),
    "codes all zero": (normal(0, 30, 4), 0 * normal(1, 20, 4)),
    "all zero": (0 * normal(0, 30, 4), 0 * normal(1, 20, 4)),
    "planes that cross": (normal(0, 30, 4) * PLANE, normal(1, 20, 4) * PLANE.flip(0)),
    "equal": (normal(0, 30, 4), normal(0, 30, 4)),
    "nearly equal": (normal(0, 30, 4), normal(0, 30, 4) + 1e-9),
    "twice over": (normal(0, 30, 4), normal(0, 30, 4).repeat(2, 1)),
    "huge": (1e30 * normal(0, 30, 4), normal(1, 20, 4)),
    "denormal": (1e-45 * normal(0, 30, 4), 1e-45 * normal(1, 20, 4)),
    "of very different scale": (normal(0, 30, 4) * torch.tensor([1, 1e-9, 1e-3, 1e6]), 1e-9 * normal(1, 20, 4)),
}  # fmt: skip


@pytest.mark.parametrize("data", DEGENERATE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_wasserstein_is_one_lipschitz_at_any_data(data: str, dtype: torch.dtype) -> None:
    """N Σ_n ‖∂/∂z_n‖² ≤ 1, because moving each z_n by δ_n moves the distance by no more than √(mean ‖δ‖²)."""
    z, codes = (part.to(dtype).requires_grad_() for part in DEGENERATE[data])
    loss = wasserstein_loss(z, codes, everything(len(z)))
    to_z, to_codes = torch.autograd.grad(loss, [z, codes])
    assert loss.isfinite()
    for gradient in (to_z, to_codes):
        # Each gradient is rounded; and the ridge, 10⁻¹² of the variance, is known to 10⁻⁴ of itself.
        assert len(gradient) * gradient.double().square().sum() <= 1 + 1e-3


@pytest.mark.parametrize("data", ["equal", "twice over", "all zero"])
def test_wasserstein_of_equal_sets_is_zero_without_a_gradient(data: str) -> None:
    z, codes = (part.requires_grad_() for part in DEGENERATE[data])
    loss = wasserstein_loss(z, codes, everything(len(z)))
    assert loss == 0
    assert all((gradient == 0).all() for gradient in torch.autograd.grad(loss, [z, codes]))


@examples(10)
@given(seed=seeds, mask=st.lists(st.booleans(), min_size=9, max_size=9).filter(lambda mask: sum(mask) > 4))
def test_wasserstein_gradient_is_the_slope(seed: int, mask: list[bool]) -> None:
    valid = torch.tensor(mask)
    z = normal(seed, 9, 3).where(valid[:, None], 0.0).requires_grad_()
    codes = (normal(seed + 1, 7, 3) + 1).requires_grad_()
    # Slopes over steps of 10⁻⁶ are good to 10⁻⁵ or so; where Σ_z is near singular its root bends.
    assert torch.autograd.gradcheck(
        lambda *inputs: wasserstein_loss(*inputs, valid), [z, codes], atol=1e-4, rtol=1e-3
    )


def test_wasserstein_carries_codes_to_the_vectors_moments() -> None:
    """Descent on the codes alone: their mean and covariance become those of the vectors, from far away."""
    z, codes = normal(0, 200, 3) * torch.tensor([2.0, 1.0, 0.3]), (0.1 * normal(1, 50, 3) + 5).requires_grad_()
    optimizer = torch.optim.Adam([codes], lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        Wasserstein(1.0, moves="codes")(z, everything(200), codes).backward()
        optimizer.step()
    codes = codes.detach()
    # Adam stops within a step or two of a slope that does not flatten.
    torch.testing.assert_close(codes.mean(0), z.mean(0), rtol=0, atol=0.2)
    torch.testing.assert_close(codes.std(0), z.std(0), rtol=0, atol=0.2)


# What all of them keep


@every_regularizer
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_nothing_valid_is_zero(regularizer: Regularizer, dtype: torch.dtype) -> None:
    codes = normal(1, 5, 3).to(dtype).requires_grad_()
    for rows in (0, 4):
        z = torch.zeros(rows, 3, dtype=dtype, requires_grad=True)
        loss = regularizer(z, torch.zeros(rows, dtype=torch.bool), codes)
        assert (loss.shape, loss.dtype) == ((), dtype)
        assert loss == 0
        for gradient in torch.autograd.grad(loss, [z, codes], allow_unused=True):
            assert gradient is None or (gradient == 0).all()


@every_regularizer
@given(seed=seeds, valid=st.lists(st.booleans(), min_size=1, max_size=9).filter(any).map(torch.tensor))
def test_rows_that_are_not_valid_do_not_count(regularizer: Regularizer, seed: int, valid: Tensor) -> None:
    z, codes = normal(seed, len(valid), 3).where(valid[:, None], 0.0), normal(seed + 1, 5, 3)
    whole, part = regularizer(z, valid, codes), regularizer(z[valid], everything(int(valid.sum())), codes)
    torch.testing.assert_close(whole, part, rtol=1e-10, atol=1e-10)


@every_regularizer
def test_a_weight_multiplies_and_a_copy_is_the_same(regularizer: Regularizer) -> None:
    z, codes, valid = normal(0, 6, 3), normal(1, 5, 3), everything(6)
    twice = copy.deepcopy(regularizer)
    twice.weight *= 2
    assert twice(z, valid, codes) == 2 * regularizer(z, valid, codes)
    assert pickle.loads(pickle.dumps(regularizer))(z, valid, codes) == regularizer(z, valid, codes)
    assert type(regularizer)(0.0)(z, valid, codes) == 0


@every_regularizer
def test_what_moves_is_what_it_says(regularizer: Regularizer) -> None:
    z, codes = normal(0, 6, 3).requires_grad_(), normal(1, 5, 3).requires_grad_()
    to_z, to_codes = torch.autograd.grad(regularizer(z, everything(6), codes), [z, codes], allow_unused=True)
    assert (to_codes != 0).any()
    assert (to_z is None) == (regularizer.moves == "codes")
    assert to_z is None or (to_z != 0).any()


@pytest.mark.parametrize("name", ["vq", "ema_vq", "simvq", "rotation_vq"])
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize("training", [True, False])
def test_a_quantizer_adds_them_to_its_loss(name: str, distance: str, training: bool) -> None:
    """On vectors and codes as they are compared, in both modes."""
    chosen = [Entropy(0.3, temperature=0.5), Wasserstein(0.2)] + [Orthogonality(2.0)] * (name != "ema_vq")
    with_them = quantizers.create(name, dim=4, codebook_size=6, distance=distance, regularizers=chosen)
    without = quantizers.create(name, dim=4, codebook_size=6, distance=distance)
    without.load_state_dict(with_them.state_dict())
    x, codes = batch(9), with_them.codebook.detach().clone()
    z = F.normalize(x) if distance == "cosine" else x
    expected = without.train(training)(x).loss + sum(
        regularizer(z, everything(9), codes) for regularizer in chosen
    )
    torch.testing.assert_close(with_them.train(training)(x).loss, expected)


@pytest.mark.parametrize("name", ["ibq", "optvq", "diveq", "nsvq"])
def test_what_derives_from_vq_takes_them_too(name: str) -> None:
    """In evaluation, where nothing is drawn and the code is that of the same codebook."""
    torch.manual_seed(0)
    plain = quantizers.create(name, dim=3, codebook_size=8).eval()
    torch.manual_seed(0)
    regularized = quantizers.create(name, dim=3, codebook_size=8, regularizers=[Orthogonality(0.5)]).eval()
    x = torch.randn(20, 3)
    expected = plain(x).loss + 0.5 * orthogonality_loss(plain.codebook)
    torch.testing.assert_close(regularized(x).loss, expected)  # a sum of two terms of size one


def test_averages_take_no_regularizer_of_codes() -> None:
    for regularizer in (Orthogonality(), Wasserstein(moves="codes")):
        with pytest.raises(ValueError, match=r"which moves codes alone, but these codes are moving averages"):
            quantizers.EMAVectorQuantizer(4, 8, regularizers=[Entropy(), regularizer])


def test_wrong_numbers_are_named() -> None:
    for wrong in (-1.0, math.nan, math.inf):
        for kind in (Orthogonality, Entropy, Wasserstein):
            with pytest.raises(ValueError, match=f"weight is {wrong}, expected a finite number of at least 0"):
                kind(wrong)
        with pytest.raises(ValueError, match="diversity is"):
            Entropy(diversity=wrong)
        with pytest.raises(ValueError, match="temperature is"):
            Entropy(temperature=wrong)
    with pytest.raises(ValueError, match="moves is 'vectors', expected 'codes' or 'both'"):
        Wasserstein(moves="vectors")
    for regularizers in (Entropy(), [Entropy], ["entropy"]):
        with pytest.raises(TypeError, match=r"regularizers is .*, expected a sequence"):
            quantizers.VectorQuantizer(4, 8, regularizers=regularizers)
