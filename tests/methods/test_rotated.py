"""A rotation in front of a quantizer: the quantizer inside sees Rz, and its value comes back as Rᵀq."""

import copy
import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import linear

import quantizers
from quantizers import MultiScaleQuantizer, Quantizer, RotatedQuantizer, VectorQuantizer
from quantizers.composite import fitted_rotation
from quantizers.composite.fitted_rotation import group_widths
from tests.cases import CASES, DIM, SIZE, Case, assert_same_state, batch, normal, seeded, state_of
from tests.effort import examples

pytestmark = pytest.mark.methods

U = 2.0**-53
seeds = st.integers(0, 2**31)
every_inside = pytest.mark.parametrize("case", [case for case in CASES if case.has_codes], ids=str)
few = examples(5)


def orthogonal(seed: int, dim: int) -> Tensor:
    return torch.linalg.qr(normal(seed, dim, dim))[0].contiguous()


def rotated(inside: Quantizer, rotation: Tensor) -> RotatedQuantizer:
    quantizer = RotatedQuantizer(inside.dim, inside).to(rotation.dtype)
    quantizer.set_rotation(rotation)
    return quantizer


def correlated(seed: int, count: int = 400, dim: int = 8) -> Tensor:
    """Normal vectors with a falling spectrum in a random basis, around a point other than the origin."""
    return (normal(seed, count, dim) * torch.logspace(0, -2, dim)) @ orthogonal(seed + 1, dim) + 0.5


def error(quantizer: Quantizer, x: Tensor) -> float:
    """The mean of ‖x − value‖² in evaluation."""
    with torch.no_grad():
        return float((quantizer.decode(quantizer.encode(x)).double() - x.double()).square().sum(-1).mean())


# Forward


@every_inside
def test_with_the_identity_everything_is_that_of_the_quantizer_inside(case: Case) -> None:
    """Bit for bit: value, indices, loss, gradients and state, with masks and vectors that are not finite."""
    inside = case.build()
    quantizer = RotatedQuantizer(DIM, copy.deepcopy(inside))
    x, mask = batch(3, 8), torch.rand(3, 8, generator=torch.Generator().manual_seed(1)) < 0.8
    x[1, 2] = torch.nan
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    for training in (True, False):
        expected, actual = (
            seeded(each.train(training), own, mask) for each, own in zip((inside, quantizer), inputs, strict=True)
        )
        for a, b in zip(expected, actual, strict=True):
            assert torch.equal(a.nan_to_num(), b.nan_to_num())
        assert_same_state(state_of(inside), state_of(quantizer.quantizer))
        assert torch.equal(inside.decode(expected.indices), quantizer.decode(expected.indices))
        if expected.quantized.requires_grad:
            for own, output in zip(inputs, (expected, actual), strict=True):
                own.grad = None
                (output.quantized.nan_to_num().square().sum() + output.loss).backward()
            assert torch.equal(inputs[0].grad, inputs[1].grad)
    assert inside.codebook_sizes == quantizer.codebook_sizes


@given(seed=seeds, name=st.sampled_from(["vq", "residual", "grouped", "fsq"]))
def test_the_quantizer_inside_gets_rotated_vectors_and_its_value_is_rotated_back(seed: int, name: str) -> None:
    inside = quantizers.create(name, DIM, SIZE, code_dim=2) if name != "fsq" else quantizers.create(name, 2, SIZE)
    inside, dim = inside.double(), inside.dim
    rotation, x = orthogonal(seed, dim), normal(seed + 1, 20, dim)
    expected = inside(linear(x, rotation))
    quantized, indices, loss = rotated(copy.deepcopy(inside), rotation)(x)
    assert torch.equal(indices, expected.indices)
    assert torch.equal(loss, expected.loss)
    # A product with a matrix of unit rows: (dim + 1) roundings of a sum below ‖q‖ √dim.
    codes = expected.quantized.detach()
    largest = float(codes.norm(dim=-1).max()) * dim**0.5
    assert (quantized.detach() - codes @ rotation).abs().max() <= 2 * (dim + 1) * U * largest


@given(seed=seeds)
def test_a_straight_through_gradient_comes_back_as_it_is(seed: int) -> None:
    """RᵀRg: two products, and an R that is orthogonal to a few roundings for each channel."""
    quantizer = rotated(VectorQuantizer(DIM, SIZE), orthogonal(seed, DIM))
    x, g = normal(seed + 1, 20, DIM).requires_grad_(), normal(seed + 2, 20, DIM)
    quantizer(x).quantized.backward(g)
    assert (x.grad - g).abs().max() <= 32 * DIM * U * float(g.norm(dim=-1).max())


def test_the_options_of_the_quantizer_inside_pass() -> None:
    inside = quantizers.create("grouped", DIM, SIZE, num_groups=2).double()
    rotation, x = orthogonal(3, DIM), normal(4, 20, DIM)
    quantizer = rotated(copy.deepcopy(inside), rotation)
    quantized, indices, _ = quantizer(x, num_codebooks=1)
    first = inside(linear(x, rotation), num_codebooks=1)
    assert torch.equal(indices, first.indices)
    assert torch.equal(quantizer.encode(x, num_codebooks=1), first.indices)
    torch.testing.assert_close(quantized, first.quantized @ rotation)
    assert torch.equal(quantizer.decode(indices), quantized)
    residual = rotated(quantizers.create("residual", DIM, SIZE, num_quantizers=2).double(), rotation)
    assert torch.equal(
        residual.encode(x, beam_width=4), residual.quantizer.encode(linear(x, rotation), beam_width=4)
    )


def test_channels_on_another_axis() -> None:
    inside = quantizers.create("opq", DIM, codebook_size=SIZE)
    quantizer = quantizers.create("opq", DIM, codebook_size=SIZE, channel_dim=1)
    inside.set_rotation(orthogonal(0, DIM))
    quantizer.load_state_dict(inside.state_dict())
    x = batch(2, 3, 5)
    expected, actual = inside(x), quantizer(x.movedim(-1, 1))
    assert torch.equal(expected.quantized.movedim(-1, 1), actual.quantized)
    assert torch.equal(expected.indices, actual.indices)


# Fit


@few
@given(seed=seeds)
def test_its_error_on_correlated_vectors_is_below_that_of_plain_groups(seed: int) -> None:
    """Groups of the given channels share most of what they have to tell; rotated groups share nothing."""
    x = correlated(seed)
    plain = quantizers.create("grouped", 8, 16, num_groups=2).double()
    turned = quantizers.create("opq", 8, codebook_size=16, num_groups=2).double()
    for quantizer in (plain, turned):
        torch.manual_seed(seed)
        quantizer.initialize_from(x)
    assert error(turned, x) < 0.8 * error(plain, x)


@few
@given(seed=seeds, shared=st.booleans())
def test_no_round_increases_the_error(seed: int, shared: bool) -> None:
    """Compared are fits of the same seed with ever more rounds. float64, so that roundings stay below 10⁻¹²."""
    x, errors = correlated(seed, 200), []
    for rounds in (0, 1, 2, 8):
        quantizer = quantizers.create("opq", 8, codebook_size=8, num_groups=2, shared=shared).double()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fitted_rotation, "ROUNDS", rounds)
            torch.manual_seed(seed)
            quantizer.initialize_from(x)
        errors.append(error(quantizer, x))
    assert all(later <= earlier * (1 + 1e-12) for earlier, later in itertools.pairwise(errors))


@few
@given(seed=seeds, name=st.sampled_from(["lfq", "fsq"]))
def test_a_rotation_fits_codes_that_are_not_learned(seed: int, name: str) -> None:
    """Iterative quantization: the rotation alone brings vectors nearer to the vertices of a cube, or to a grid."""
    options = {"codebook_size": 2**DIM} if name == "lfq" else {"levels": [3] * DIM, "bound": "clamp"}
    quantizer = quantizers.create("rotated", DIM, quantizer=name, **options).double()
    x = normal(seed, 300, DIM) * torch.tensor([1.0, 0.5, 0.1, 0.1])
    before = error(quantizer, x)
    quantizer.initialize_from(x)
    assert error(quantizer, x) <= before * (1 + 1e-12)
    assert not torch.equal(quantizer.rotation, torch.eye(DIM).double())


@few
@given(seed=seeds, exponent=st.sampled_from([-30, 0, 30]))
def test_the_rotation_stays_orthogonal_at_any_scale(seed: int, exponent: int) -> None:
    """Each value of R is rounded to float32 once, so that RRᵀ is off by at most 2 · 2⁻²⁴ Σ|r_i||r_j| ≤ 2⁻²³."""
    quantizer = quantizers.create("opq", DIM, codebook_size=8)
    x = (correlated(seed, 100, DIM) * 10.0**exponent).float()
    torch.manual_seed(seed)
    quantizer.initialize_from(x)
    r = quantizer.rotation.double()
    assert (r @ r.T - torch.eye(DIM)).abs().max() <= 2.0**-23 * (1 + 2.0**-20)
    assert torch.equal(quantizer.project_out.weight, quantizer.rotation.T)
    small = quantizers.create("opq", DIM, codebook_size=8)
    torch.manual_seed(seed)
    small.initialize_from(x * 2.0**-4)
    assert torch.equal(small.rotation, quantizer.rotation)  # a power of two changes no rounding


def test_warm_start_fits_it() -> None:
    quantizer = quantizers.create("opq", 8, codebook_size=16, num_groups=4)
    x = correlated(0).float()
    before = error(quantizer, x)
    quantizers.warm_start(quantizer, x.split(100))
    assert error(quantizer, x) < before
    assert not torch.equal(quantizer.rotation, torch.eye(8))


def test_frozen_codes_keep_their_rotation() -> None:
    for freeze in (lambda quantizer: quantizer.freeze(), lambda quantizer: quantizer.quantizer.freeze()):
        quantizer = quantizers.create("opq", DIM, codebook_size=8)
        freeze(quantizer)
        before = state_of(quantizer)
        quantizer.initialize_from(batch(50))
        assert_same_state(before, state_of(quantizer))


def test_the_groups_that_a_rotation_balances() -> None:
    for name, options, widths in (
        ("grouped", {"num_groups": 4}, [2, 2, 2, 2]),
        ("multihead", {"num_heads": 2}, [4, 4]),
        ("bypass", {"quantizer": "grouped"}, [4, 4]),
        ("vq", {}, [8]),
        ("residual", {}, [8]),
    ):
        assert group_widths(quantizers.create(name, 8, 16, **options)) == widths
    halves = [VectorQuantizer(2, 8) for _ in range(2)]
    assert group_widths(quantizers.GroupedQuantizer(8, halves)) == [8]  # groups behind a projection


def test_vectors_without_any_spread() -> None:
    """Equal vectors, and fewer vectors than codes: the covariance has no rank, and every value is right."""
    for x in (torch.ones(20, DIM), torch.eye(DIM)[:2], torch.zeros(3, DIM)):
        quantizer = quantizers.create("opq", DIM, codebook_size=8)
        quantizer.initialize_from(x)
        # The nearest of codes that are copies of the vectors, moved by a thousandth of their norm.
        torch.testing.assert_close(quantizer.decode(quantizer.encode(x)), x, rtol=0, atol=1e-5)


# Errors


@pytest.mark.parametrize(
    ("wrong", "kind", "sentence"),
    [
        (torch.eye(3), ValueError, r"rotation has shape \(3, 3\), expected \(4, 4\)"),
        (torch.full((4, 4), torch.nan), ValueError, "rotation has values that are not finite"),
        (2 * torch.eye(4), ValueError, "rotation is not orthogonal: R Rᵀ − I has a value of 3, expected at most"),
        (torch.eye(4, dtype=torch.int64), TypeError, "rotation has dtype torch.int64, expected a floating dtype"),
        ([[1.0]], TypeError, "rotation is of type list, expected a tensor"),
    ],
)
def test_what_is_no_rotation(wrong: Any, kind: type[Exception], sentence: str) -> None:
    quantizer = quantizers.create("opq", 4, codebook_size=8)
    before = state_of(quantizer)
    with pytest.raises(kind, match=sentence):
        quantizer.set_rotation(wrong)
    assert_same_state(before, state_of(quantizer))


def test_what_cannot_be_inside() -> None:
    with pytest.raises(ValueError, match="quantizer has dim=4, expected dim=8: a rotation keeps the channels"):
        RotatedQuantizer(8, VectorQuantizer(4, 8))
    with pytest.raises(ValueError, match="which quantizes maps"):
        RotatedQuantizer(4, MultiScaleQuantizer(4, [VectorQuantizer(4, 8)], scales=(1,), axes=1))
    with pytest.raises(ValueError, match="which has no codes"):
        RotatedQuantizer(4, quantizers.Identity(4))
    with pytest.raises(ValueError, match="no vector counts, expected at least one vector that is finite"):
        quantizers.create("opq", 4, codebook_size=8).initialize_from(torch.full((3, 4), torch.nan))
    with pytest.raises(ValueError, match="dim is 10, expected a multiple of num_groups, 4"):
        quantizers.create("opq", 10, codebook_size=8, num_groups=4)
