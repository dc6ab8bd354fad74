"""State that a wrapper puts in half precision: computed with in float32, and warned of once a quantizer.

Casts of modules leave a quantizer's state in float32 (test_casts.py). DeepSpeed sets the data of each parameter,
FSDP swaps parameters for the time of a forward; both by themselves are in tests/distributed.
"""

import copy
import functools
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import quantizers
from quantizers import Quantizer
from quantizers.core.state.half_state import is_half
from tests.cases import DIM, Case, batch, every_case, modes, seeded
from tests.versions import needs_torch

pytestmark = pytest.mark.methods


def tensors(module: nn.Module, buffers: bool = True) -> list[Tensor]:
    held = [*module.parameters(), *(module.buffers() if buffers else ())]
    return [tensor for tensor in held if tensor.is_floating_point()]


def force(module: nn.Module, dtype: torch.dtype, buffers: bool = True) -> None:
    """What a wrapper does that knows of no module's own casts."""
    for tensor in tensors(module, buffers):
        tensor.data = tensor.data.to(dtype)


def results(quantizer: Quantizer, x: Tensor) -> list[Tensor]:
    """Of a forward, with its gradient, after `encode` and `decode`: the forward may move state, and round it."""
    x, indices = x.clone().requires_grad_(), quantizer.encode(x)
    decoded, out = quantizer.decode(indices), seeded(quantizer, x)
    (out.quantized.square().sum() + out.loss).backward()
    assert x.grad is not None
    return [*out, x.grad, indices, decoded]


@every_case
@modes
@pytest.mark.parametrize("buffers", [True, False], ids=["state", "parameters"])
@pytest.mark.filterwarnings("ignore:.*its codes are rounded:RuntimeWarning")
def test_half_state_is_rounded_and_all_else_is_float32(case: Case, training: bool, buffers: bool) -> None:
    """Bit for bit what float32 state of the same values gives, gradients too."""
    quantizer = case.build().train(training)
    force(quantizer, torch.bfloat16, buffers)
    wide = copy.deepcopy(quantizer)
    force(wide, torch.float32)
    if not case.has_codes:
        return
    for name, (a, b) in enumerate(zip(results(quantizer, batch(40)), results(wide, batch(40)), strict=True)):
        assert torch.equal(a, b), f"result {name} differs"


def warned(forward: Callable[[], Any], action: Any = "always") -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter(action)
        forward()
    return [str(warning.message) for warning in caught if "its codes are rounded" in str(warning.message)]


@every_case
@pytest.mark.parametrize("action", ["default", "always"])
def test_each_quantizer_warns_once(case: Case, action: str) -> None:
    """Whatever its state is made of, also where another one has warned before and a filter has shown that."""
    for _ in range(2):
        quantizer = case.build()
        assert not warned(lambda q=quantizer: q(batch(4)), action)
        force(quantizer, torch.float16)
        messages = warned(lambda q=quantizer: [q(batch(4)) for _ in range(3)], action)
        assert len(messages) == bool(tensors(quantizer))
        assert all("torch.float16" in m and type(quantizer).__name__ in m for m in messages)
    if tensors(quantizer):
        assert warned(lambda: copy.deepcopy(quantizer)(batch(4)))  # which is another


@pytest.mark.usefixtures("fresh_compiler")
@needs_torch(2, 13, "graphs that replace the attributes of a module")  # as far as tried, up to 2.9
def test_a_compiled_quantizer_computes_in_float32_too() -> None:
    quantizer = quantizers.create("simvq", dim=DIM, codebook_size=8, code_dim=2)
    force(quantizer, torch.bfloat16, buffers=False)
    compiled = torch.compile(quantizer, fullgraph=True, backend="aot_eager")
    found = compiled(batch(10))
    assert all(map(torch.equal, found, seeded(copy.deepcopy(quantizer).float(), batch(10))))


@pytest.mark.parametrize("keeps", [True, False], ids=["beside the parameter", "in its place"])
@pytest.mark.filterwarnings("ignore:.*its codes are rounded:RuntimeWarning")
def test_half_attributes_in_the_place_of_parameters(keeps: bool) -> None:
    """As FSDP has them in a forward, with `use_orig_params` and without."""
    for case in (Case("vq", {"code_dim": 2}), Case("simvq"), Case("vqbridge"), Case("gumbel"), Case("qinco")):
        quantizer = case.build()
        expected = seeded(force_and_back(copy.deepcopy(quantizer)), batch(20))
        held = [
            (part, name, p) for part in quantizer.modules() for name, p in part.named_parameters(recurse=False)
        ]
        for part, name, parameter in held:
            if not keeps:
                del part._parameters[name]
            part.__dict__[name] = parameter.detach().bfloat16()
        before = [part.__dict__[name] for part, name, _ in held]
        assert warned(lambda q=quantizer: q(batch(20))), f"{case}: no warning"
        assert all(map(torch.equal, seeded(quantizer, batch(20)), expected)), str(case)
        assert all(part.__dict__[name] is b for (part, name, _), b in zip(held, before, strict=True))


def force_and_back(module: Quantizer) -> Quantizer:
    """Float32 parameters of rounded values."""
    force(module, torch.bfloat16, buffers=False)
    return module.float()


class FlatBuffer:
    """ZeRO with bf16 in small: parameters cast one by one, laid into one buffer, with float32 copies."""

    def __init__(self, model: nn.Module) -> None:
        force(model, torch.bfloat16, buffers=False)
        model.to("cpu")
        self.parameters = [*model.parameters()]
        self.flat = torch.cat([p.detach().flatten() for p in self.parameters])
        assert self.flat.dtype == torch.bfloat16, "a parameter of another dtype widens the buffer"
        self.masters = self.flat.float()
        sizes = [p.numel() for p in self.parameters]
        for parameter, view in zip(self.parameters, self.flat.split(sizes), strict=True):
            parameter.data = view.view_as(parameter)

    def step(self) -> None:
        self.masters -= 0.1 * torch.cat([p.grad.float().flatten() for p in self.parameters if p.grad is not None])
        self.flat.copy_(self.masters)


@every_case
@pytest.mark.filterwarnings("ignore:.*its codes are rounded:RuntimeWarning")
def test_parameters_live_in_one_flat_buffer_of_half_precision(case: Case) -> None:
    """Beside those of the model, through `train()` in each step; the buffer's step moves the quantizer."""
    quantizer = case.build()
    model = nn.Sequential(nn.Linear(DIM, DIM), quantizer)
    optimizer = FlatBuffer(model)
    before = [parameter.detach().clone() for parameter in quantizer.parameters()]
    for seed in range(2):
        out = model.train()(batch(20, seed=seed).bfloat16())
        (out.quantized.float().square().sum() + out.loss).backward()
        optimizer.step()
        model.zero_grad()
    assert all(is_half(parameter) for parameter in model.parameters())
    after = [*quantizer.parameters()]
    assert not before or any(not torch.equal(a, b) for a, b in zip(after, before, strict=True))


@every_case
def test_forced_state_is_float32_again_after_float_and_after_train(case: Case) -> None:
    for undo in (Quantizer.float, Quantizer.train, Quantizer.eval, Quantizer.double):
        quantizer = case.build()
        force(quantizer, torch.bfloat16)
        undo(quantizer)
        assert not any(map(is_half, tensors(quantizer)))
        assert not warned(lambda q=quantizer: q(batch(4)))


def test_a_constructor_that_is_replaced_still_finishes(monkeypatch: pytest.MonkeyPatch) -> None:
    """deepspeed.zero.Init puts a function of its own in the place of each class's constructor."""
    expected = quantizers.create("vq", dim=DIM, codebook_size=8, code_dim=2).state_dict()
    for cls in (quantizers.VectorQuantizer, *quantizers.VectorQuantizer.__mro__[1:3]):
        constructor = cls.__init__

        @functools.wraps(constructor)
        def replaced(self: Any, *args: Any, _of: Any = constructor, **kwargs: Any) -> None:
            _of(self, *args, **kwargs)

        monkeypatch.setattr(cls, "__init__", replaced)
    assert quantizers.create("vq", dim=DIM, codebook_size=8, code_dim=2).state_dict().keys() == expected.keys()
