"""Whatever arrives: state stays finite, indices keep the contract, and one vector spoils no other's gradient."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from quantizers import (
    BSQ,
    ParallelQuantizer,
    QINCo,
    Quantizer,
    QuantizerOutput,
    VectorQuantizer,
    use_implementation,
)
from quantizers.scalar.grid import GridQuantizer
from tests.cases import (
    DIM,
    Case,
    batch,
    cases_where,
    every_case,
    normal,
    rounding_tolerance,
    seeded,
    state_of,
)
from tests.effort import examples

pytestmark = pytest.mark.methods

LARGEST = torch.finfo(torch.float32).max


def with_one(value: float) -> Callable[[], Tensor]:
    """Ordinary vectors, one of which has that value in one channel."""

    def rows() -> Tensor:
        x = batch(20)
        x[7, 2] = value
        return x

    return rows


ORDINARY: dict[str, Callable[[], Tensor]] = {
    "one NaN": with_one(torch.nan),
    "one Inf": with_one(torch.inf),
    "one -Inf": with_one(-torch.inf),
    "all NaN": lambda: torch.full((20, DIM), torch.nan),
    "zeros": lambda: torch.zeros(20, DIM),
    "one zero": lambda: torch.cat([torch.zeros(1, DIM), batch(19)]),
    "constant": lambda: torch.full((20, DIM), 0.7),
    "all equal": lambda: batch(1).repeat(20, 1),
    "one vector": lambda: batch(1),
    "fewer than codes": lambda: batch(3),
}
HUGE: dict[str, Callable[[], Tensor]] = {
    "1e30": lambda: 1e30 * batch(20),
    "one of 1e30": lambda: torch.cat([1e30 * batch(1, seed=1), batch(19)]),
    "end of the range": lambda: LARGEST * batch(20).sign(),
}
TINY: dict[str, Callable[[], Tensor]] = {
    "denormals": lambda: 1e-40 * batch(20),
    "smallest denormals": lambda: 2.0**-149 * batch(20).sign(),
}
ARRIVALS = ORDINARY | HUGE | TINY
arrivals = pytest.mark.parametrize("arriving", ARRIVALS)


@dataclass(frozen=True)
class Step:
    """One step of training, or one forward and backward in evaluation, and what it left."""

    case: Case
    before: Quantizer  # as the forward used it
    after: Quantizer
    x: Tensor
    out: QuantizerOutput

    @property
    def valid(self) -> Tensor:
        """Which vectors are finite, where a projection leads in also behind it: it may overflow."""
        with torch.no_grad():
            projected = self.before.project_in(self.x)
            parts = self.before.components if isinstance(self.before, ParallelQuantizer) else []
            behind = [projected, *(part.project_in(projected) for part in parts)]
        return self.x.isfinite().all(-1) & torch.cat(behind, -1).isfinite().all(-1)


def take_step(case: Case, quantizer: Quantizer, x: Tensor) -> Step:
    """Forward, backward with a gradient of ones, and in training a step of SGD, if its gradients are finite."""
    before = copy.deepcopy(quantizer)
    x = x.clone().requires_grad_()
    out = seeded(quantizer, x)
    roots = [root for root in (out.quantized, out.loss) if root.requires_grad]
    torch.autograd.backward(roots, [torch.ones_like(root) for root in roots])
    gradients = [p.grad for p in quantizer.parameters() if p.grad is not None]
    # Products of weights that a step has moved to 10²⁹ are beyond float32, in any network.
    bears_a_step = not isinstance(quantizer, QINCo) or bool((x.detach().nan_to_num().abs() < 1e10).all())
    finite = all(gradient.isfinite().all() for gradient in gradients)
    if quantizer.training and gradients and finite and bears_a_step:
        torch.optim.SGD(quantizer.parameters(), lr=0.1).step()
    return Step(case, before, quantizer, x, out)


def assert_outputs_of_the_contract(step: Step, arriving: str) -> None:
    quantized, indices, loss = step.out
    valid = step.valid
    assert (indices[~valid] == -1).all()
    assert quantized[~valid].isnan().all()
    assert quantized[valid].isfinite().all()
    assert not loss.isnan()
    assert loss.isfinite() or arriving in HUGE
    if not step.case.has_codes:
        assert (indices == -1).all()
        return
    assert ((indices[valid] >= 0) & (indices[valid] < step.before.codebook_size)).all()
    if step.case.trains_on_codes or not step.before.training:
        gap = (step.before.decode(indices) - quantized)[valid].abs()
        assert (gap <= rounding_tolerance(step.before)).all()


def assert_gradients_are_finite(step: Step, arriving: str) -> None:
    """Also of vectors that are not, and far out, where the loss itself is infinite."""
    gradient = step.x.grad
    assert gradient is not None
    assert not gradient.isnan().any()
    # The gradient of z/‖z‖ is of the size of 1/‖z‖, which for a denormal is beyond float32.
    normalized = isinstance(step.before, BSQ) or step.case.distance == "cosine"
    assert gradient.isfinite().all() or (arriving in TINY and normalized)
    assert (gradient[~step.x.isfinite().all(-1)] == 0).all()
    if step.case.multiplies and arriving in HUGE:  # the gradient of its weight holds squares of x
        return
    assert all(p.grad.isfinite().all() for p in step.after.parameters() if p.grad is not None)


def assert_still_works(quantizer: Quantizer) -> None:
    """In training, and then in evaluation: also where a step has moved codes to the size of what arrived."""
    assert all(tensor.isfinite().all() for tensor in state_of(quantizer).values())
    for training in (True, False):
        assert seeded(quantizer.train(training), batch(10)).quantized.isfinite().all()
        assert all(tensor.isfinite().all() for tensor in state_of(quantizer).values())


@every_case
@arrivals
def test_what_arrives_breaks_neither_outputs_nor_gradients_nor_state(case: Case, arriving: str) -> None:
    for training in (True, False):
        torch.manual_seed(0)
        step = take_step(case, case.build().train(training), ARRIVALS[arriving]())
        assert_outputs_of_the_contract(step, arriving)
        assert_gradients_are_finite(step, arriving)
        assert_still_works(step.after)


@cases_where(lambda case: case.takes_sizes)
def test_the_smallest_codebook_does_all_of_it_too(case: Case) -> None:
    """One code; of an implicit grid, whose channels have two levels at least, two."""
    smallest: dict[str, Any] = {"codebook_size": 2 if isinstance(case.sample, GridQuantizer) else 1}
    if case.takes_levels:
        smallest = {"levels": (2,), "codebook_size": None}
    for arriving, vectors in ARRIVALS.items():
        torch.manual_seed(0)
        step = take_step(case, case.build(**smallest), vectors())
        assert_outputs_of_the_contract(step, arriving)
        assert_still_works(step.after)


# Codebooks


def has_nearest_codes(case: Case) -> bool:
    """Whether codes can be set one by one, and evaluation chooses the nearest. SimVQ's are a map of its basis."""
    return case.sample.has_table and case.choice == "nearest"


@cases_where(has_nearest_codes)
def test_a_codebook_of_zeros_does_all_of_it_too(case: Case) -> None:
    """All codes are equally near and none has a direction: the first is chosen."""
    for arriving, vectors in ARRIVALS.items():
        torch.manual_seed(0)
        quantizer = case.build()
        quantizer.set_codebook(torch.zeros_like(quantizer.codebook))
        step = take_step(case, quantizer, vectors())
        assert_outputs_of_the_contract(step, arriving)
        assert_gradients_are_finite(step, arriving)
        assert_still_works(step.after)
        assert (step.before.encode(step.x)[step.valid] == 0).all()


@cases_where(lambda case: has_nearest_codes(case) and case.takes_sizes)
@examples(10)
@given(seed=st.integers(0, 99), copies=st.integers(2, 5))
def test_of_equal_codes_the_lowest_is_chosen(case: Case, seed: int, copies: int) -> None:
    quantizer = case.build(codebook_size=6 * copies)
    codes = normal(seed, 6, quantizer.code_dim, dtype=torch.float32)
    quantizer.set_codebook(codes.repeat(copies, 1))
    x = torch.cat([batch(20, seed=seed), torch.zeros(1, DIM), 1e-40 * batch(5)])
    assert (quantizer.encode(x) < 6).all()
    if quantizer.same_indices_in_training:
        assert (quantizer(x).indices < 6).all()


@cases_where(lambda case: has_nearest_codes(case) and not case.multiplies)
@pytest.mark.parametrize("scale", [1e6, 1e15, 1e20, 1e30, 1e38])
def test_a_vector_far_out_gets_the_code_that_is_the_nearest(case: Case, scale: float) -> None:
    """Where ‖z − e‖ is equal for all e in float64, it is z·e − ½‖e‖² that tells them apart."""
    quantizer = case.build()
    x = scale * batch(20).clamp(-3, 3)
    z, codes = x.double(), quantizer.codebook.detach().double()
    if case.distance in ("cosine", "angle"):
        z, codes = (rows / torch.linalg.vector_norm(rows, dim=-1, keepdim=True) for rows in (z, codes))
    scores = z @ codes.T - codes.square().sum(-1) / 2
    best, second = scores.topk(2).values.unbind(-1)
    # Ten float64 roundings of terms up to ‖z‖·‖e‖, and for the cosine some of float32: no row here is near a tie.
    assert (best - second > 2.0**-18 * scores.abs().amax(-1)).all()
    assert torch.equal(quantizer.encode(x), scores.argmax(-1))


# The loss


def exact_loss(x: Tensor, codes: Tensor, weight: float) -> tuple[float, float]:
    """The largest weighted sum of squares of a vector, and their mean over vectors and channels.

    In float64, whose range holds any square of a float32.
    """
    sums = weight * (x.double() - codes.double()).square().sum(-1)
    return float(sums.max()), float(sums.sum()) / x.numel()


@given(
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    exponent=st.floats(-45, 39),
    code_exponent=st.floats(-40, 38),
    rows=st.integers(1, 20),
    seed=st.integers(0, 2**31),
    training=st.booleans(),
)
def test_the_loss_is_exact_up_to_where_float32_ends(
    dtype: torch.dtype, exponent: float, code_exponent: float, rows: int, seed: int, training: bool
) -> None:
    """Infinite where the mean leaves float32, and perhaps where the sum over one vector's channels does."""
    limit = torch.finfo(dtype).max
    x = (10.0**exponent * normal(seed, rows, DIM)).clamp(-limit, limit).to(dtype)
    quantizer = VectorQuantizer(DIM, 6).train(training)
    quantizer.set_codebook((10.0**code_exponent * normal(seed + 1, 6, DIM)).clamp(-LARGEST, LARGEST).float())
    out = quantizer(x)
    largest, mean = exact_loss(x, quantizer.codebook.detach()[out.indices], weight=1.25)
    # A difference, which counts twice in its square, the square, D − 1 sums and the weight of each vector, its
    # division, and N − 1 sums of vectors: all of one sign, so that these relative errors of 2⁻²⁴ add up.
    relative = (DIM + rows + 5) * 2.0**-24
    # A square below float32's normal range may become zero, with the weight, and so may each vector's quotient.
    absolute = 2.0**-125 + rows * 2.0**-126
    loss = float(out.loss.detach())
    assert not math.isnan(loss)
    if largest < LARGEST * (1 - relative):
        assert abs(loss - mean) <= relative * mean + absolute
    elif mean > LARGEST * (1 + relative):
        assert loss == math.inf
    else:
        assert loss == math.inf or abs(loss - mean) <= relative * mean


@pytest.mark.parametrize("implementation", ["reference", "blocked", "compiled"])
def test_a_loss_without_weight_is_zero_at_any_distance(implementation: str) -> None:
    quantizer = VectorQuantizer(DIM, 6, commitment_weight=0.0, codebook_weight=0.0)
    x = (1e30 * batch(5)).requires_grad_()
    with use_implementation(implementation):
        out = quantizer(x)
        out.loss.backward()
    assert out.loss == 0
    assert (x.grad == 0).all()


@pytest.mark.parametrize("scale", [1e20, 1e30, 3e38])
@pytest.mark.parametrize("name", ["vq", "rotation_vq", "ema_vq", "simvq"])
def test_where_the_loss_is_infinite_its_gradient_is_exact(name: str, scale: float) -> None:
    """d/dz of commitment_weight · mean (z − e)² is of the size of z: no overflow on the way."""
    quantizer = Case(name).build(commitment_weight=0.25)
    codes = quantizer.codebook.detach().double()
    x = (scale * (batch(20) / 5).clamp(-1, 1)).requires_grad_()
    out = quantizer(x)
    assert out.loss == math.inf
    out.loss.backward()
    expected = 0.25 * 2 * (x.detach().double() - codes[out.indices]) / x.numel()
    # A difference, the product with 2 · weight, and the division: three roundings.
    assert ((x.grad.double() - expected).abs() <= 3 * 2.0**-24 * expected.abs()).all()
