"""Training with scaled gradients: a step whose gradients overflow is skipped, and moves no parameter."""

import copy

import pytest
import torch
from torch import Tensor, nn

from quantizers import EMAVectorQuantizer, NormalizedFSQ, Quantizer
from tests.cases import DIM, Case, assert_same_state, batch, cases_where, every_case, seeded, state_of

pytestmark = pytest.mark.methods

MODERATE = 2.0**8
TOO_LARGE = 2.0**40  # a gradient of 2⁻²⁴ times this is the first that a half cannot hold


class Training:
    """A half-precision encoder before a quantizer, Adam, and a scaler."""

    def __init__(self, quantizer: Quantizer, scale: float = MODERATE) -> None:
        self.model = nn.ModuleDict({"encoder": nn.Linear(DIM, DIM), "quantizer": quantizer})
        # Each step that overflows takes the scale from TOO_LARGE to MODERATE.
        self.scaler = torch.amp.GradScaler("cpu", init_scale=scale, backoff_factor=MODERATE / TOO_LARGE)
        parameters = [*self.model.parameters()]
        self.optimizer = torch.optim.Adam(parameters, 0.01)  # a rate that networks bear too

    def encode(self, x: Tensor) -> Tensor:
        """In half precision."""
        with torch.autocast("cpu", dtype=torch.float16):
            encoded: Tensor = self.model["encoder"](x)
        assert encoded.dtype == torch.float16
        return encoded

    def backward(self, x: Tensor, seed: int = 7) -> Tensor:
        """Of a scaled loss: that of the quantizer and of a decoder that wants zeros."""
        self.optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            quantized, _, loss = seeded(self.model["quantizer"], self.model["encoder"](x), seed=seed)
        loss = quantized.float().square().mean() + loss
        self.scaler.scale(loss).backward()
        return loss.detach()

    def step(self, x: Tensor, seed: int = 7) -> Tensor:
        loss = self.backward(x, seed)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss


def parameters_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@every_case
def test_a_skipped_step_leaves_the_codebook_whole(case: Case) -> None:
    """And every other parameter, and the optimizer's moments; after it, training goes on at a lower scale."""
    training = Training(case.build())
    training.step(batch(30))  # now Adam has moments
    parameters = parameters_of(training.model)
    moments = copy.deepcopy(training.optimizer.state_dict())

    training.scaler.update(TOO_LARGE)
    training.step(batch(30, seed=1))
    assert not training.model["encoder"].weight.grad.isfinite().all()  # so that it was to be skipped
    assert training.scaler.get_scale() == MODERATE
    assert_same_state(parameters_of(training.model), parameters)
    assert all(tensor.isfinite().all() for tensor in state_of(training.model["quantizer"]).values())
    for number, state in training.optimizer.state_dict()["state"].items():
        assert_same_state(state, moments["state"][number])

    loss = training.step(batch(30, seed=2))
    assert training.scaler.get_scale() == MODERATE
    assert loss.isfinite()
    for name, parameter in training.model.named_parameters():
        if parameter.grad is not None:
            assert parameter.isfinite().all()
            assert not torch.equal(parameter, parameters[name]), f"{name} stays"


@every_case
def test_a_skipped_step_moves_buffers_as_its_forward_does(case: Case) -> None:
    """Averages follow the vectors seen, in each forward in training; that a step is skipped is none of theirs."""
    training = Training(case.build(), TOO_LARGE)
    quantizer = training.model["quantizer"]
    before, twin = state_of(quantizer), copy.deepcopy(quantizer)
    encoded = training.encode(batch(30)).detach()
    training.step(batch(30))
    assert training.scaler.get_scale() == MODERATE  # it was skipped
    seeded(twin, encoded)
    assert_same_state(state_of(quantizer), state_of(twin))
    assert all(tensor.isfinite().all() for tensor in state_of(quantizer).values())
    moved = [name for name, buffer in quantizer.named_buffers() if not torch.equal(buffer, before[name])]
    averages = {
        EMAVectorQuantizer: ["embedding", "cluster_size", "embedding_sum"],
        NormalizedFSQ: ["moments", "seen"],
    }
    assert moved == next((names for kind, names in averages.items() if isinstance(quantizer, kind)), [])


@cases_where(lambda case: bool(list(case.build().parameters())))
def test_scaling_and_unscaling_leave_the_gradients_as_they_are(case: Case) -> None:
    """A power of two, on the way to the quantizer's parameters: bit for bit, for they stay float32."""
    scaled = Training(case.build(), 2.0**6)
    plain = Training(copy.deepcopy(scaled.model["quantizer"]), 1.0)
    plain.model["encoder"].load_state_dict(scaled.model["encoder"].state_dict())
    for training in (scaled, plain):
        x = 30 * batch(30)  # gradients that are normal numbers in half precision, both of them
        encoded = training.encode(x)
        with torch.autocast("cpu", dtype=torch.float16):
            quantized, _, loss = seeded(training.model["quantizer"], encoded)
        training.scaler.scale(quantized.float().square().sum() + loss).backward()
        training.scaler.unscale_(training.optimizer)
    pairs = zip(scaled.model["quantizer"].parameters(), plain.model["quantizer"].parameters(), strict=True)
    for a, b in pairs:
        assert (a.grad is None) == (b.grad is None)
        assert a.grad is None or a.grad.dtype == torch.float32
        assert a.grad is None or torch.equal(a.grad, b.grad)
