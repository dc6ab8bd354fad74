"""9: `torch.compile(fullgraph=True)` gives one graph, forward and backward, that computes what eager mode does."""

import copy

import pytest
import torch
import torch._inductor.config as inductor
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

import quantizers
from quantizers import Quantizer
from quantizers.training.schedules import CosineDecay, LinearCommitment
from tests.cases import (
    DIM,
    Case,
    assert_same_state,
    batch,
    cases_where,
    every_case,
    every_method,
    has_index,
    indices_for,
    rounding_tolerance,
    seeded,
    state_of,
)
from tests.versions import needs_torch, with_free_numbers

# What PyTorch warns of in its own compiler.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("fresh_compiler"),
    pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated"),
    pytest.mark.filterwarnings("ignore:Skipping serialization of skipfiles_inline_module_allowlist:UserWarning"),
]

with_compiled_recomputation = needs_torch(2, 6, "non-reentrant checkpointing of compiled functions")
EPS = torch.finfo(torch.float32).eps


def partly_broken(rows: int = 30) -> tuple[Tensor, Tensor]:
    """Vectors, one of them NaN, and a mask that leaves out another."""
    x, mask = batch(rows), torch.ones(rows, dtype=torch.bool)
    x[1, 2], mask[4] = torch.nan, False
    return x.requires_grad_(), mask


def step(module: nn.Module, quantizer: Quantizer, rows: int = 30) -> list[Tensor]:
    """Outputs, gradients and the state after a forward and a backward; NaN where a vector was."""
    quantizer.zero_grad()
    x, mask = partly_broken(rows)
    out = seeded(module, x, mask)
    (out.quantized.where(has_index(quantizer, out.indices)[..., None], 0.0).square().sum() + out.loss).backward()
    gradients = [p.grad for p in quantizer.parameters() if p.grad is not None]
    return [part.detach() for part in (*out, x.grad, *gradients, *state_of(quantizer).values())]


@pytest.mark.methods
@every_case
def test_one_graph_for_all_batch_sizes_computes_what_eager_mode_does(case: Case) -> None:
    assert_one_graph(case.build())


@pytest.mark.foundations
@every_method
def test_so_it_is_in_evaluation(case: Case) -> None:
    assert_one_graph(case.build().eval())


def assert_one_graph(eager: Quantizer) -> None:
    traced = copy.deepcopy(eager)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(traced, fullgraph=True, backend=counter, dynamic=True)
    graphs = []
    for rows in (30, 7, 64):
        for a, b in zip(step(eager, eager, rows), step(compiled, traced, rows), strict=True):
            assert torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0))
        graphs.append(counter.frame_count)
    assert graphs == graphs[:1] * 3


@pytest.mark.foundations
@every_method
@inductor.patch(fallback_random=True)  # the noise's seed by eager mode's generator
def test_inductor_computes_what_eager_mode_does(case: Case) -> None:
    """Up to the order in which 30 losses are added, and products that its fused code does not round."""
    eager = case.build()
    traced = copy.deepcopy(eager)
    expected, actual = step(eager, eager), step(torch.compile(traced, fullgraph=True), traced)
    assert torch.equal(actual[1], expected[1])
    for a, b in zip(actual, expected, strict=True):
        tolerance = 2 * 31 * EPS * b.nan_to_num().abs().max() if b.is_floating_point() else 0
        torch.testing.assert_close(a, b, rtol=0, atol=float(tolerance), equal_nan=True)


@pytest.mark.foundations
@every_method
def test_a_second_batch_size_is_the_last_that_compiles(case: Case) -> None:
    """What `torch.compile` does unasked: one graph for the first size, one for all others above one."""
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(case.build(), fullgraph=True, backend=counter)
    for rows in (7, 12, 64, 33, 2, 100):
        compiled(batch(rows))
    assert counter.frame_count == 2


@pytest.mark.foundations
@every_method
@pytest.mark.parametrize("rows", [0, 1])
def test_a_compiled_graph_takes_batches_of_one_and_none(case: Case, rows: int) -> None:
    eager = case.build()
    compiled = torch.compile(copy.deepcopy(eager), fullgraph=True, backend="aot_eager")
    for a, b in zip(seeded(compiled, batch(rows)), seeded(eager, batch(rows)), strict=True):
        assert torch.equal(a, b)


@pytest.mark.foundations
@every_method
def test_switching_modes_compiles_each_once(case: Case) -> None:
    quantizer = case.build()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(quantizer, fullgraph=True, backend=counter)
    for _ in range(3):
        quantizer.train()
        compiled(batch(9))
        quantizer.eval()
        compiled(batch(9))
    assert counter.frame_count <= 2


@with_free_numbers
@pytest.mark.parametrize("name", ["vq", "ema_vq"])
def test_a_moving_commitment_weight_compiles_once_more(name: str) -> None:
    """At its second value; dynamo gives up at the ninth graph of a function."""
    quantizer = Case(name).build()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(quantizer, fullgraph=True, backend=counter)
    schedule = LinearCommitment(quantizer, start=0.0, end=1.0, steps=20)
    for count in range(21):
        x = batch(9).requires_grad_()
        out = compiled(x)
        out.loss.backward()
        # A code may be the average of what it was: the gradient is that of the code that the forward used.
        expected = count / 20 * 2 * (x - out.quantized).detach() / x.numel()
        torch.testing.assert_close(x.grad, expected, rtol=8 * EPS, atol=0)
        schedule.step()
    assert counter.frame_count == 2


@with_free_numbers
def test_a_moving_decay_compiles_once_more() -> None:
    """At its second value, as the weight does; the averages are those of eager mode."""
    quantizer = Case("ema_vq").build()
    eager = copy.deepcopy(quantizer)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(quantizer, fullgraph=True, backend=counter)
    schedules = [CosineDecay(each, start=0.5, end=0.999, steps=20) for each in (quantizer, eager)]
    for count in range(21):
        x = batch(9, seed=count)
        compiled(x), eager(x)
        # γ is float64 in both; the compiled averages may be rounded in another order.
        torch.testing.assert_close(quantizer.cluster_size, eager.cluster_size, rtol=64 * EPS, atol=0)
        torch.testing.assert_close(quantizer.codebook, eager.codebook, rtol=64 * EPS, atol=64 * EPS)
        for schedule in schedules:
            schedule.step()
    assert counter.frame_count <= 2


@pytest.mark.methods
@cases_where(lambda case: case.has_codes and not case.options.keys() & {"gradient", "decoder_gradient", "hard"})
def test_encode_and_decode_compile(case: Case) -> None:
    quantizer = case.build()
    x, mask = partly_broken()
    indices = quantizer.encode(x, mask)
    encode = torch.compile(quantizer.encode, fullgraph=True, backend="aot_eager")
    decode = torch.compile(quantizer.decode, fullgraph=True, backend="aot_eager")
    assert torch.equal(encode(x, mask), indices)
    gap = (decode(indices) - quantizer.decode(indices)).abs().max()
    assert gap <= rounding_tolerance(quantizer)


@pytest.mark.foundations
@cases_where(lambda case: case.has_codes and not case.is_variation)
def test_a_compiled_decode_marks_what_is_no_index(case: Case) -> None:
    """It cannot raise; it must not give another code in silence."""
    quantizer = case.build()
    decode = torch.compile(quantizer.decode, fullgraph=True, backend="aot_eager")
    strange = torch.tensor([-2, -1, 0, quantizer.codebook_size, -(2**63), 2**63 - 1])
    decoded = decode(indices_for(quantizer, strange))
    assert decoded[[0, 3, 4, 5]].isnan().all()
    assert (decoded[1] == 0).all()
    assert decoded[2].isfinite().all()


def test_switching_the_implementation_needs_no_new_graph() -> None:
    """A graph is not bound to what held when it was made, its backward neither."""
    quantizer = Case("rotation_vq").build()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(quantizer, fullgraph=True, backend=counter)
    for name in ("reference", "blocked", "reference"):
        with quantizers.use_implementation(name) as ran:
            step(compiled, quantizer)
        assert ran["nearest_lookup", name] == 1
        assert ran["rotate_grad", "reference"] == 1
    assert counter.frame_count == 1


class Checkpointed(nn.Module):
    """A layer and a quantizer behind it, computed again in the backward."""

    def __init__(self, quantizer: Quantizer, reentrant: bool) -> None:
        super().__init__()
        self.layer, self.quantizer, self.reentrant = nn.Linear(DIM, DIM), quantizer, reentrant

    def inner(self, x: Tensor) -> Tensor:
        quantized, _, loss = self.quantizer(self.layer(x).tanh())
        return quantized.square().sum() + loss

    def forward(self, x: Tensor) -> Tensor:
        value: Tensor = checkpoint(self.inner, x, use_reentrant=self.reentrant)
        return value


@pytest.mark.foundations
@cases_where(lambda case: case == Case("ema_vq"))
@pytest.mark.parametrize(
    ("reentrant", "compiled"),
    [
        pytest.param(True, "inside", id="reentrant-inside"),
        pytest.param(False, "inside", id="non-reentrant-inside", marks=with_compiled_recomputation),
        pytest.param(True, "outside", id="reentrant-outside"),
        pytest.param(False, "outside", id="non-reentrant-outside"),
    ],
)
def test_checkpointing_and_compiling_move_state_once(case: Case, reentrant: bool, compiled: str) -> None:
    """In either order; the forward in the backward sees the codes of the first."""
    plain = Checkpointed(case.build(decay=0.5), reentrant)
    other = copy.deepcopy(plain)
    run: nn.Module = other
    if compiled == "inside":
        other.inner = torch.compile(other.inner, fullgraph=True, backend="aot_eager")  # type: ignore[method-assign]
    else:
        run = torch.compile(other, fullgraph=True, backend="aot_eager")  # type: ignore[assignment]
    inputs = [batch(30).requires_grad_(), batch(30).requires_grad_()]
    for _ in range(2):
        plain.inner(inputs[0]).backward()
        run(inputs[1]).backward()
    assert torch.equal(inputs[0].grad, inputs[1].grad)
    assert_same_state(state_of(plain.quantizer), state_of(other.quantizer))
