"""Casts of a module or of the model around it: state stays in float32, and every tensor stays the one it was."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from quantizers import Quantizer
from tests.cases import DIM, Case, assert_same_state, batch, cases_where, every_case, modes, seeded, state_of

pytestmark = pytest.mark.methods

CASTS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "half": nn.Module.half,
    "bfloat16": nn.Module.bfloat16,
    "to-dtype": lambda model: model.to(torch.float16),
    "to-dtype-and-device": lambda model: model.to(dtype=torch.bfloat16, device="cpu"),
    "to-like-a-tensor": lambda model: model.to(torch.zeros((), dtype=torch.float16)),
    "type": lambda model: model.type(torch.float16),
}
every_cast = pytest.mark.parametrize("cast", CASTS.values(), ids=CASTS.keys())
Cast = Callable[[nn.Module], nn.Module]


class Autoencoder(nn.Module):
    """A bigger model that has the quantizer two levels down."""

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.encoder = nn.Linear(DIM, DIM)
        self.bottleneck = nn.ModuleDict({"quantizer": quantizer})
        self.decoder = nn.Linear(DIM, DIM)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        quantized, _, loss = self.bottleneck["quantizer"](self.encoder(x))
        return self.decoder(quantized), loss


def moved_state(case: Case) -> Quantizer:
    """Whose averages are no longer its codes, nor numbers that a half could hold."""
    quantizer = case.build()
    for seed in range(2):
        quantizer(batch(30, seed=seed))
    return quantizer


def tensors_of(quantizer: Quantizer) -> list[Tensor]:
    return [*quantizer.parameters(), *quantizer.buffers()]


def assert_same_results(actual: Quantizer, expected: Quantizer, x: Tensor) -> None:
    """Bit for bit, of one training step and the state that it leaves."""
    outputs = seeded(actual, x), seeded(expected, x)
    assert all(torch.equal(a, b) for a, b in zip(*outputs, strict=True))
    assert_same_state(state_of(actual), state_of(expected))


@every_case
@every_cast
def test_a_cast_to_half_leaves_every_tensor_as_it_is(case: Case, cast: Cast) -> None:
    """Its dtype, its bits, and the object itself, which an optimizer or a CUDA graph may hold."""
    quantizer = moved_state(case)
    untouched = copy.deepcopy(quantizer)
    tensors = tensors_of(quantizer)
    places = [tensor.data_ptr() for tensor in tensors]
    model = Autoencoder(quantizer)
    assert cast(model) is model
    assert model.encoder.weight.dtype.itemsize == 2
    assert_same_state(state_of(quantizer), state_of(untouched))
    assert all(a is b for a, b in zip(tensors_of(quantizer), tensors, strict=True))
    assert [tensor.data_ptr() for tensor in tensors] == places
    assert_same_results(quantizer, untouched, batch(30, dtype=model.encoder.weight.dtype))


@every_case
def test_the_way_to_half_and_back_is_no_way(case: Case) -> None:
    quantizer = moved_state(case)
    untouched = copy.deepcopy(quantizer)
    assert_same_state(state_of(quantizer.half().float().bfloat16().float()), state_of(untouched))


@every_case
def test_float64_and_back_is_no_way(case: Case) -> None:
    quantizer = moved_state(case)
    untouched = copy.deepcopy(quantizer)
    assert_same_state(state_of(quantizer.double().float()), state_of(untouched))
    assert_same_results(quantizer, untouched, batch(30))


@every_case
def test_half_after_float64_loses_nothing(case: Case) -> None:
    quantizer = moved_state(case).double()
    quantizer(batch(30).double())  # so that float32 could not hold the state
    untouched = copy.deepcopy(quantizer)
    assert_same_state(state_of(quantizer.half()), state_of(untouched))


@every_case
@modes
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_a_module_in_float64_takes_any_input(case: Case, training: bool, dtype: torch.dtype) -> None:
    """The output has the input's dtype, the loss float32 (float64 for float64 input), the state stays float64."""
    quantizer = case.build().double().train(training)
    out = quantizer(batch(30, dtype=dtype))
    assert out.quantized.dtype == dtype
    assert out.loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert out.quantized.isfinite().all()
    floating = [tensor for tensor in state_of(quantizer).values() if tensor.is_floating_point()]
    assert all(tensor.dtype == torch.float64 for tensor in floating)


@every_case
def test_a_step_in_float64_is_the_step_in_float32_to_more_digits(case: Case) -> None:
    """Indices of the same values by the same codes; they are far enough apart here for either precision."""
    quantizer = moved_state(case).eval()
    double = copy.deepcopy(quantizer).double()
    x = batch(30)
    assert torch.equal(double(x.double()).indices, quantizer(x).indices)


# Without parameters there is nothing that an optimizer could lose.
@cases_where(lambda case: bool(list(case.build().parameters())))
@every_cast
def test_an_optimizer_made_before_the_cast_still_moves_the_quantizer(case: Case, cast: Cast) -> None:
    """And makes the step that it would have made without the cast: also of gradients that were there before."""
    quantizer = case.build()
    untouched = copy.deepcopy(quantizer)
    before = state_of(quantizer)
    model = Autoencoder(quantizer)
    optimizers = [torch.optim.SGD(parameters, 0.5) for parameters in (model.parameters(), untouched.parameters())]
    x = batch(30)
    for module in (quantizer, untouched):
        backward(module, x)
    cast(model)
    held = {id(parameter) for group in optimizers[0].param_groups for parameter in group["params"]}
    assert {id(parameter) for parameter in model.parameters()} == held
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    assert_same_state(state_of(quantizer), state_of(untouched))
    assert any(not torch.equal(before[name], tensor) for name, tensor in quantizer.named_parameters())
    for module in (quantizer, untouched):  # and a second step, of gradients after the cast
        backward(module, x)
    for optimizer in optimizers:
        optimizer.step()
    assert_same_state(state_of(quantizer), state_of(untouched))


@every_case
def test_an_optimizer_made_after_the_cast_keeps_its_moments_in_float32(case: Case) -> None:
    model = Autoencoder(case.build()).bfloat16()
    quantizer = model.bottleneck["quantizer"]
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    before = state_of(quantizer)
    reconstruction, loss = model(batch(30, dtype=torch.bfloat16))
    (reconstruction.float().square().mean() + loss).backward()
    optimizer.step()
    for name, parameter in quantizer.named_parameters():
        if parameter.grad is None:
            continue
        assert parameter.grad.dtype == torch.float32
        assert optimizer.state[parameter]["exp_avg"].dtype == torch.float32
        assert torch.equal(before[name], parameter) == (not parameter.grad.any())


def backward(quantizer: Quantizer, x: Tensor) -> None:
    out = seeded(quantizer, x)
    (out.quantized.square().mean() + out.loss).backward()
