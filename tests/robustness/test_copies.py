"""Copies are independent, a quantizer that is used twice is one, and each forward in training counts once."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from quantizers import EMAVectorQuantizer, Quantizer
from tests.cases import DIM, Case, assert_same_state, batch, cases_where, every_case, seeded, state_of
from tests.robustness.training import Training
from tests.versions import needs_torch

pytestmark = pytest.mark.methods


def pickled(module: nn.Module) -> nn.Module:
    copied: nn.Module = pickle.loads(pickle.dumps(module))
    return copied


whole_copies = pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled])


def train(quantizer: Quantizer, steps: int = 2) -> None:
    training = Training(quantizer)
    for _ in range(steps):
        training.step()


def assert_alike(a: nn.Module, b: nn.Module) -> None:
    expected, actual = seeded(a, batch(20, seed=5)), seeded(b, batch(20, seed=5))
    assert all(torch.equal(x, y) for x, y in zip(expected, actual, strict=True))


@every_case
@whole_copies
def test_a_copy_learns_for_itself(case: Case, duplicate: Callable[[Quantizer], Quantizer]) -> None:
    quantizer = case.build()
    train(quantizer)
    copied = duplicate(quantizer)
    before = state_of(quantizer)
    train(copied)
    assert_same_state(before, state_of(quantizer))
    own = duplicate(quantizer)
    assert_alike(quantizer, own)
    after = state_of(copied)
    train(quantizer)
    assert_same_state(after, state_of(copied))


@every_case
def test_a_shallow_copy_shares_its_state(case: Case) -> None:
    """As of any module: another name for the same parameters and buffers, with a mode of its own."""
    quantizer = case.build()
    train(quantizer)
    shallow = copy.copy(quantizer)
    before = state_of(quantizer)
    train(shallow)
    assert_same_state(state_of(quantizer), state_of(shallow))
    assert (
        not before
        or not (list(shallow.parameters()) or shallow.observes)  # nothing to learn
        or any(not torch.equal(value, before[name]) for name, value in state_of(quantizer).items())
    )
    shallow.eval()
    assert quantizer.training
    assert_alike(quantizer.eval(), shallow)


# PyTorch's own, in its compiler.
compiles = pytest.mark.filterwarnings(
    "ignore:.torch.jit.script_method. is deprecated:DeprecationWarning",
    "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning",
)


@compiles
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("name", ["vq", "ema_vq"])
@whole_copies
def test_a_module_compiled_in_place_copies(name: str, duplicate: Callable[[Quantizer], Quantizer]) -> None:
    """The graph stays behind: PyTorch drops it from what it copies, and the copy runs eagerly."""
    quantizer = Case(name).build()
    quantizer.compile(backend="aot_eager", fullgraph=True)
    quantizer(batch(20))
    copied = duplicate(quantizer)
    assert_alike(quantizer, copied)
    before = state_of(quantizer)
    train(copied)
    assert_same_state(before, state_of(quantizer))
    copied.compile(backend="aot_eager", fullgraph=True)
    own = copy.deepcopy(copied)
    assert_alike(copied, own)


@compiles
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("name", ["vq", "ema_vq"])
@pytest.mark.parametrize(
    ("duplicate", "backend"),
    [
        (copy.deepcopy, "aot_eager"),
        (pickled, "eager"),
        pytest.param(pickled, "aot_eager", marks=needs_torch(2, 6, "an aot_eager that pickles once it has run")),
    ],
)
def test_a_compiled_module_copies(name: str, duplicate: Callable[[nn.Module], nn.Module], backend: str) -> None:
    """What `torch.compile` returns holds the module, and copies with it."""
    compiled = torch.compile(Case(name).build(), backend=backend, fullgraph=True)
    compiled(batch(20))
    copied = duplicate(compiled)
    assert_alike(compiled, copied)
    before = state_of(compiled)
    train(copied)
    assert_same_state(before, state_of(compiled))
    assert any(not torch.equal(value, before[key]) for key, value in state_of(copied).items())


# One quantizer in two places


class TwoPlaces(nn.Module):
    """Two branches that quantize with the same codes."""

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.top = quantizer
        self.bottom = quantizer

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        total = x.new_zeros(())
        for branch, vectors in ((self.top, x), (self.bottom, y)):
            out = branch(vectors)
            total = total + out.quantized.square().sum() + out.loss
        return total


def gradients(quantizer: Quantizer) -> list[Tensor]:
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in quantizer.parameters()]


@every_case
def test_a_shared_quantizer_is_two_forwards_of_one(case: Case) -> None:
    """One after the other: its state has moved for the second, and gradients add."""
    model = TwoPlaces(case.build().double())
    single = copy.deepcopy(model.top)
    assert [id(p) for p in model.parameters()] == [id(p) for p in model.top.parameters()]
    inputs = [batch(rows, dtype=torch.float64, seed=rows).requires_grad_() for rows in (20, 15)]
    torch.manual_seed(7)
    model(*inputs).backward()
    torch.manual_seed(7)
    apart = []
    for x in inputs:
        single.zero_grad()
        alone = x.detach().requires_grad_()
        out = single(alone)
        (out.quantized.square().sum() + out.loss).backward()
        apart.append(gradients(single))
        assert torch.equal(x.grad, alone.grad)  # by the codes of its own forward, whatever has moved them since
    assert_same_state(state_of(single), state_of(model.top))
    for whole, first, second in zip(gradients(model.top), *apart, strict=True):
        # The parts of a gradient, of the order of one, may be added in another order: a few roundings of 2⁻⁵³.
        assert (whole - (first + second)).abs().max() <= 2.0**-40


@every_case
def test_a_shared_quantizer_is_saved_and_loaded_whole(case: Case) -> None:
    model, fresh = TwoPlaces(case.build()), TwoPlaces(case.build())
    train(model.top)
    state = model.state_dict()
    names = model.top.state_dict().keys()
    assert state.keys() == {f"{place}.{name}" for place in ("top", "bottom") for name in names}
    fresh.load_state_dict(state, strict=True)
    assert fresh.top is fresh.bottom
    assert_alike(model.top, fresh.bottom)
    copied = copy.deepcopy(model)
    assert copied.top is copied.bottom


# Once a forward


@every_case
def test_a_forward_moves_state_as_much_without_a_gradient(case: Case) -> None:
    with_gradient = case.build()
    without, unfinished = copy.deepcopy(with_gradient), copy.deepcopy(with_gradient)
    for seed in range(3):
        x = batch(20, seed=seed)
        out = seeded(with_gradient, x.clone().requires_grad_())
        (out.quantized.square().sum() + out.loss).backward()
        seeded(unfinished, x.clone().requires_grad_())  # its loss was not finite, say, and nobody called backward
        with torch.no_grad():
            seeded(without, x)
    assert_same_state(state_of(with_gradient), state_of(without))
    assert_same_state(state_of(with_gradient), state_of(unfinished))


@cases_where(
    lambda case: isinstance(case.sample, EMAVectorQuantizer) and case.learns_all_codes and not case.multiplies
)
def test_accumulated_gradients_move_the_averages_with_each_micro_batch(case: Case) -> None:
    """Four micro-batches before one step of the optimizer are four steps of the averages, not one."""
    encoder = nn.Linear(DIM, DIM)
    quantizer = case.build()
    assert isinstance(quantizer, EMAVectorQuantizer)
    stepped, at_once = copy.deepcopy(quantizer), copy.deepcopy(quantizer)
    micro_batches = [batch(10, seed=seed) for seed in range(4)]
    vectors = [encoder(x).detach() for x in micro_batches]  # the encoder does not move in between
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1)
    for x in micro_batches:
        out = quantizer(encoder(x))
        ((out.quantized - x).square().mean() + out.loss).backward()
    optimizer.step()

    for z in vectors:
        z.requires_grad_()
        out = stepped(z)
        (out.quantized.sum() + out.loss).backward()
        torch.optim.SGD([z], lr=0.1).step()
    assert_same_state(state_of(stepped), state_of(quantizer))

    at_once(torch.cat(vectors))
    # The sizes sum to γⁿK + (1 − γⁿ)·10 after n micro-batches of ten, to γK + (1 − γ)·40 after one batch of forty.
    decay, size = quantizer.decay, quantizer.codebook_size
    total, total_at_once = quantizer.cluster_size.sum(), at_once.cluster_size.sum()
    torch.testing.assert_close(float(total), decay**4 * size + (1 - decay**4) * 10, rtol=1e-5, atol=0)
    torch.testing.assert_close(float(total_at_once), decay * size + (1 - decay) * 40, rtol=1e-5, atol=0)
