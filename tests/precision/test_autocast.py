"""Autocast, on a CPU and on a GPU: codes, losses, gradients and state of float32, whatever the encoder gives."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from quantizers import GumbelQuantizer, QuantizerOutput
from quantizers.codebooks.nearest import NearestCodeQuantizer
from quantizers.core.projection import Projection
from tests.cases import (
    DIM,
    SIZE,
    Case,
    assert_same_state,
    batch,
    cases_where,
    every_case,
    modes,
    seeded,
    state_of,
)

pytestmark = pytest.mark.methods

NO_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
devices = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NO_CUDA])])
halves = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)


def assert_same_output(actual: QuantizerOutput, expected: QuantizerOutput) -> None:
    """Bit for bit, and in the same dtypes."""
    for a, b in zip(actual, expected, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


def encoded(device: str, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """What a linear layer gives under autocast: a tensor in half precision."""
    encoder = nn.Linear(DIM, DIM, device=device)
    with torch.autocast(device, dtype=dtype):
        x: Tensor = encoder(batch(30, seed=seed).to(device))
    assert x.dtype == dtype
    return x.detach()


@devices
@halves
@modes
@every_case
def test_autocast_leaves_float32_vectors_alone(
    case: Case, training: bool, dtype: torch.dtype, device: str
) -> None:
    quantizer = case.build().to(device).train(training)
    other = copy.deepcopy(quantizer)
    x = batch(30).to(device)
    expected = seeded(quantizer, x)
    with torch.autocast(device, dtype=dtype):
        actual = seeded(other, x)
        assert torch.equal(other.encode(x), quantizer.encode(x))
    assert_same_output(actual, expected)
    assert_same_state(state_of(quantizer), state_of(other))


@devices
@halves
@modes
@every_case
def test_an_encoder_under_autocast_gets_what_its_values_get_in_float32(
    case: Case, training: bool, dtype: torch.dtype, device: str
) -> None:
    """Its output is in half precision; the codes, the loss, the state and every gradient are of those values."""
    quantizer = case.build().to(device).train(training)
    other = copy.deepcopy(quantizer)
    half = encoded(device, dtype).requires_grad_()
    full = half.detach().clone().requires_grad_()

    quantized, indices, loss = seeded(quantizer, full.float())  # without autocast
    expected = QuantizerOutput(quantized.to(dtype), indices, loss)
    with torch.autocast(device, dtype=dtype):
        actual = seeded(other, half)
        encoded_again = other.encode(half)
    assert_same_output(actual, expected)
    assert torch.equal(encoded_again, quantizer.encode(full.float()))
    assert_same_state(state_of(quantizer), state_of(other))

    for out in (actual, expected):
        (out.quantized.float().square().mean() + out.loss).backward()
    assert half.grad.dtype == dtype
    assert torch.equal(half.grad, full.grad)
    for a, b in zip(other.parameters(), quantizer.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None)
        assert a.grad is None or torch.equal(a.grad, b.grad)


# A projection may round otherwise among other rows.
@devices
@halves
@modes
@cases_where(lambda case: case.has_codes and not case.multiplies)
def test_decode_under_autocast_is_the_quantized_vector(
    case: Case, training: bool, dtype: torch.dtype, device: str
) -> None:
    """Exactly: float32 codes of float32 vectors, and those rounded once of vectors in half precision."""
    if training and not case.trains_on_codes:
        training = False
    quantizer = case.build().to(device).train(training)
    for x in (batch(30).to(device), encoded(device, dtype)):
        frozen = copy.deepcopy(quantizer)  # the codebook that the forward uses, before its own step
        with torch.autocast(device, dtype=dtype):
            quantized, indices, _ = quantizer(x)
            decoded = frozen.decode(indices)
        assert decoded.dtype == torch.float32
        assert torch.equal(decoded, frozen.decode(indices))
        assert torch.equal(decoded.to(x.dtype), quantized)


@cases_where(lambda case: case.has_codes and not case.multiplies)
@halves
@modes
def test_decode_rounded_to_half_is_the_quantized_vector(case: Case, training: bool, dtype: torch.dtype) -> None:
    if training and not case.trains_on_codes:
        training = False
    quantizer = case.build().train(training)
    frozen = copy.deepcopy(quantizer)
    quantized, indices, _ = quantizer(batch(30, dtype=dtype))
    assert quantized.dtype == dtype
    assert torch.equal(frozen.decode(indices).to(dtype), quantized)


@devices
@halves
@every_case
def test_autocast_goes_on_after_the_quantizer(case: Case, dtype: torch.dtype, device: str) -> None:
    """For the decoder behind it."""
    quantizer, decoder = case.build().to(device), nn.Linear(DIM, DIM, device=device)
    with torch.autocast(device, dtype=dtype):
        quantized, indices, _ = quantizer(batch(30).to(device))
        assert decoder(quantized).dtype == dtype
        quantizer.encode(batch(30).to(device))
        if case.has_codes:
            quantizer.decode(indices)
        assert torch.is_autocast_enabled(device)
        assert decoder(quantized).dtype == dtype


def multiplies(case: Case) -> bool:
    """Whether a matrix product of PyTorch's is in its forward."""
    return any(isinstance(part, nn.Linear | Projection) for part in case.build().modules())


# PyTorch's own matrix products round to half in a backward under autocast; where there is none, nothing may.
@devices
@halves
@cases_where(lambda case: not case.multiplies and not multiplies(case))
def test_a_backward_under_autocast_gives_the_gradients_of_float32(
    case: Case, dtype: torch.dtype, device: str
) -> None:
    quantizer = case.build().to(device)
    other = copy.deepcopy(quantizer)
    inputs = [batch(30).to(device).requires_grad_() for _ in range(2)]
    for module, x, autocast in [(quantizer, inputs[0], False), (other, inputs[1], True)]:
        with torch.autocast(device, dtype=dtype, enabled=autocast):
            out = seeded(module, x)
            (out.quantized.square().mean() + out.loss).backward()
    assert torch.equal(inputs[1].grad, inputs[0].grad)
    for a, b in zip(other.parameters(), quantizer.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None)
        assert a.grad is None or torch.equal(a.grad, b.grad)


# Losses at the end of the range

# bfloat16 reaches as far as float32. At 2⁶² the weighted squared distance of a vector of four channels, at most
# 1.25 · 4 · (2⁶² + 5)², is below float32's 2¹²⁸; that of all vectors together is not.
LARGEST = [(torch.float16, 65504.0), (torch.bfloat16, 2.0**62)]
largest_values = pytest.mark.parametrize(("dtype", "largest"), LARGEST, ids=["float16", "bfloat16"])


def at_the_end_of_the_range(rows: int, dtype: torch.dtype, largest: float) -> Tensor:
    """Vectors of ±largest, and below them others of all sizes."""
    signs = batch(rows).sign()
    sizes = torch.logspace(0, -6, rows).where(torch.arange(rows) >= rows // 2, 1.0)
    x = (signs * sizes[:, None]).to(dtype) * largest
    assert x.isfinite().all()
    assert (x.abs() == largest).any()
    return x


@every_case
@modes
@largest_values
def test_no_loss_of_half_precision_vectors_overflows(
    case: Case, training: bool, dtype: torch.dtype, largest: float
) -> None:
    quantizer = case.build().train(training)
    x = at_the_end_of_the_range(60, dtype, largest).requires_grad_()
    out = quantizer(x)
    assert out.loss.isfinite()
    assert out.loss >= 0 or case.sample.loss_depends_on_batch  # whose entropies have both signs
    (out.quantized.float().sum() + out.loss).backward()
    assert x.grad.isfinite().all()
    assert all(tensor.isfinite().all() for tensor in state_of(quantizer).values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in quantizer.parameters())


@cases_where(
    lambda case: (
        isinstance(case.build(), NearestCodeQuantizer)
        and not case.multiplies
        and case.distance != "cosine"
        and "regularizers" not in case.options
    )
)
@modes
@largest_values
def test_the_loss_at_the_end_of_the_range_is_that_of_float64(
    case: Case, training: bool, dtype: torch.dtype, largest: float
) -> None:
    quantizer = case.build().train(training)
    before = copy.deepcopy(quantizer)
    x = at_the_end_of_the_range(60, dtype, largest)
    out = quantizer(x)
    weight = quantizer.commitment_weight + quantizer.codebook_weight + getattr(quantizer, "double_weight", 0.0)
    expected = weight * (x.double() - before.decode(out.indices).double()).square().mean()
    # All terms are positive, so that relative errors do not grow: a difference rounds once and counts twice in its
    # square, which rounds once; D − 1 and N − 1 sums, two products with weights, N·D, a division, the codes' sum.
    roundings = 3 + (DIM - 1) + (len(x) - 1) + 5
    unit = torch.finfo(torch.float32).eps / 2
    assert (out.loss.double() - expected).abs() <= 1.01 * roundings * unit * expected


@cases_where(lambda case: case.distance == "cosine" and not case.multiplies)
@largest_values
def test_the_cosine_loss_does_not_depend_on_the_range(case: Case, dtype: torch.dtype, largest: float) -> None:
    """Of vectors whose direction is the same: a power of two is exact, 65504 is none."""
    quantizer = case.build().eval()
    scale = 2.0 ** math.floor(math.log2(largest))
    directions = batch(60).sign().to(dtype)
    far, near = quantizer(directions * scale), quantizer(directions)
    assert torch.equal(far.indices, near.indices)
    assert torch.equal(far.loss, near.loss)


@cases_where(lambda case: isinstance(case.sample, GumbelQuantizer))
@largest_values
def test_the_divergence_is_at_most_that_of_a_single_code(case: Case, dtype: torch.dtype, largest: float) -> None:
    """ln K nats, whatever the size of the logits; N terms of that size round once each."""
    quantizer = case.build()
    loss = quantizer(at_the_end_of_the_range(60, dtype, largest)).loss
    slack = 1 + 64 * torch.finfo(torch.float32).eps
    assert 0 <= loss <= quantizer.kl_weight * math.log(SIZE) * slack
