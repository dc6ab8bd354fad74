"""States of optimizers where codes move: each kind follows by its own rule, and none ends a training."""

import copy
import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from quantizers import DeadCodeReplacement, VectorQuantizer
from quantizers.training.optimizer_state import OptimizerState
from tests.cases import batch

DIM, SIZE = 6, 24
PLACES = torch.tensor([3, 17, 18])
OTHERS = torch.ones(SIZE, dtype=torch.bool).index_fill(0, PLACES, value=False)
Make = Callable[[list[nn.Parameter]], torch.optim.Optimizer]

OPTIMIZERS: dict[str, Make] = {
    "adam": lambda p: torch.optim.Adam(p, amsgrad=True),
    "adam fused": lambda p: torch.optim.Adam(p, fused=True),
    "adamw foreach": lambda p: torch.optim.AdamW(p, foreach=True),
    "sgd": lambda p: torch.optim.SGD(p, momentum=0.9),
    "rmsprop": lambda p: torch.optim.RMSprop(p, centered=True, momentum=0.9),
    "adagrad": lambda p: torch.optim.Adagrad(p, initial_accumulator_value=0.1),
    "adadelta": torch.optim.Adadelta,
    "adamax": torch.optim.Adamax,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "rprop": lambda p: torch.optim.Rprop(p, lr=0.03),
    "asgd": lambda p: torch.optim.ASGD(p, t0=0.0),
}
if hasattr(torch.optim, "Adafactor"):  # which torch 2.5 brought
    OPTIMIZERS["adafactor"] = torch.optim.Adafactor
if hasattr(torch.optim, "Muon"):  # which torch 2.9 brought
    OPTIMIZERS["muon"] = torch.optim.Muon


def codes(size: int = SIZE, dim: int = DIM) -> nn.Parameter:
    return nn.Parameter(torch.randn(size, dim))


def step(optimizer: torch.optim.Optimizer, scale: float = 1.0) -> None:
    for parameter in optimizer.param_groups[0]["params"]:
        parameter.grad = scale * torch.randn_like(parameter)
    optimizer.step()


def moved(
    optimizer: object, parameter: nn.Parameter, share: float = 1.0, state: OptimizerState | None = None
) -> None:
    """New codes at PLACES, and what the optimizer keeps for them."""
    with torch.no_grad():
        parameter[PLACES] = torch.randn(len(PLACES), parameter.shape[1])
        (state or OptimizerState()).follow(optimizer, parameter, PLACES, torch.full((len(PLACES),), share))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_code_that_moved_has_the_state_of_a_new_one(name: str) -> None:
    """That which the same optimizer makes of a gradient of zero; the others keep theirs, bit for bit."""
    parameter = codes()
    optimizer = OPTIMIZERS[name]([parameter])
    for _ in range(3):
        step(optimizer)
    before = copy.deepcopy(optimizer.state[parameter])
    moved(optimizer, parameter)
    after = optimizer.state[parameter]
    new = nn.Parameter(parameter.detach().clone())
    fresh = OPTIMIZERS[name]([new])
    step(fresh, scale=0.0)
    tables = 0
    for key, value in fresh.state[new].items():
        if isinstance(value, Tensor) and value.shape[:1] == (SIZE,):
            tables += 1
            torch.testing.assert_close(after[key][PLACES], value[PLACES], rtol=1e-4, atol=1e-6)
            assert torch.equal(after[key][OTHERS], before[key][OTHERS])
            assert key == "ax" or not torch.equal(after[key], before[key])
        elif isinstance(value, Tensor):
            assert torch.equal(after[key], before[key])
    assert tables > 0
    for _ in range(3):
        step(optimizer)
    assert parameter.isfinite().all()


def test_a_copy_of_the_codes_takes_the_new_code() -> None:
    """Which zeros would draw to the origin: what schedule-free and Lookahead keep."""
    parameter = codes()
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    optimizer.state[parameter] = {name: parameter.detach().clone() for name in ("z", "slow_buffer", "momentum")}
    before = parameter.detach().clone()
    moved(optimizer, parameter)
    for name in ("z", "slow_buffer"):
        assert torch.equal(optimizer.state[parameter][name], parameter)
    assert not optimizer.state[parameter]["momentum"][PLACES].any()
    assert torch.equal(optimizer.state[parameter]["momentum"][OTHERS], before[OTHERS])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("share", [0.25, 0.999, 1.0])
def test_moments_of_any_precision_shrink(dtype: torch.dtype, share: float) -> None:
    """Also stacked ones [2, K, D], and Adafactor's rows [K] and columns [D] of transformers."""
    parameter = codes()
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    shapes = {
        "momentum": (SIZE, DIM),
        "stacked": (2, SIZE, DIM),
        "exp_avg_sq_row": (SIZE,),
        "exp_avg_sq_col": (DIM,),
        "scale": (SIZE, 1),
    }
    state = {name: torch.randn(shape, dtype=torch.float64).to(dtype) for name, shape in shapes.items()}
    optimizer.state[parameter] = copy.deepcopy(state)
    moved(optimizer, parameter, share)
    for name, old in state.items():
        new = optimizer.state[parameter][name]
        axis = 1 if name == "stacked" else 0
        if name == "exp_avg_sq_col":
            assert torch.equal(new, old)
            continue
        expected = old.double().index_copy(axis, PLACES, (1 - share) * old.double().index_select(axis, PLACES))
        # Of 1 − share the rounding of float32, and one of the moment's own.
        atol = (1e-7 + torch.finfo(dtype).eps * (1 - share)) * float(old.abs().max())
        torch.testing.assert_close(new.double(), expected, rtol=0, atol=atol)


class EightBit(torch.optim.Optimizer):
    """SGD with momentum in eight bits as bitsandbytes keeps it: indices of numbers, times each block's largest."""

    BLOCK = 8

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        super().__init__(parameters, {"lr": 0.1})

    def momentum(self, parameter: nn.Parameter) -> Tensor:
        state = self.state[parameter]
        numbers = state["qmap1"][state["state1"].long()].view(-1, self.BLOCK)
        return (numbers * state["absmax1"][:, None]).view_as(parameter)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for parameter in self.param_groups[0]["params"]:
            state = self.state[parameter]
            if not state:
                state["qmap1"] = torch.arange(-127, 128) * torch.arange(-127, 128).abs() / 127**2
                state["state1"] = torch.zeros(parameter.shape, dtype=torch.uint8)
                state["absmax1"] = torch.zeros(parameter.numel() // self.BLOCK)
            momentum = 0.9 * self.momentum(parameter) + parameter.grad
            blocks = momentum.view(-1, self.BLOCK)
            state["absmax1"] = blocks.abs().amax(1)
            nearest = (blocks / state["absmax1"][:, None])[..., None] - state["qmap1"]
            state["state1"] = nearest.abs().argmin(-1).to(torch.uint8).view_as(parameter)
            parameter -= 0.1 * self.momentum(parameter)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_moment_in_eight_bits_beside_its_numbers_shrinks(share: float) -> None:
    parameter = codes()
    optimizer = EightBit([parameter])
    step(optimizer)
    before = optimizer.momentum(parameter)
    moved(optimizer, parameter, share)
    after = optimizer.momentum(parameter)
    assert torch.equal(after[OTHERS], before[OTHERS])
    assert after[PLACES].any() == (share < 1)
    # The numbers are at most 2/127 apart.
    assert ((after - (1 - share) * before)[PLACES].abs() <= before.abs().max() / 127).all()


class Quantized(Tensor):
    """A tensor that can be read as a whole and written as a whole, as torchao's; nothing else is defined."""

    values: Tensor
    whole: bool

    @staticmethod
    def __new__(cls, values: Tensor, whole: bool) -> "Quantized":
        new: Quantized = Tensor._make_wrapper_subclass(cls, values.shape, dtype=values.dtype)  # type: ignore[attr-defined]
        new.values, new.whole = values, whole
        return new

    def dequantize(self) -> Tensor:
        if not self.whole:
            raise NotImplementedError("dequantize")
        return self.values.clone()

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.ops.aten.copy_.default and args[0].whole:
            args[0].values.copy_(args[1])
            return args[0]
        raise NotImplementedError(f"{function} is not implemented")


def test_a_tensor_of_a_kind_of_its_own_is_written_as_a_whole() -> None:
    parameter = codes()
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    values = torch.randn(SIZE, DIM)
    optimizer.state[parameter]["exp_avg"] = Quantized(values.clone(), whole=True)
    moved(optimizer, parameter)
    after = optimizer.state[parameter]["exp_avg"].values
    assert not after[PLACES].any()
    assert torch.equal(after[OTHERS], values[OTHERS])


UNKNOWN: dict[str, Callable[[nn.Parameter], Any]] = {
    "bytes": lambda p: torch.full(p.shape, 128, dtype=torch.uint8),
    "subclass": lambda p: Quantized(torch.zeros(p.shape), whole=False),
    "flat": lambda p: torch.randn(p.numel()),
    "preconditioner": lambda p: torch.eye(len(p)),
    "list": lambda p: [torch.eye(len(p)), torch.eye(p.shape[1])],
    "inference": lambda p: torch.inference_mode()(torch.zeros)(p.shape),
}


@pytest.mark.parametrize("kind", UNKNOWN)
@pytest.mark.parametrize("dim", [DIM, SIZE], ids=["table", "square"])
def test_an_unknown_state_stays_with_one_sentence(kind: str, dim: int) -> None:
    """Also where a table of codes is square, as preconditioners are."""
    parameter = codes(dim=dim)
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    optimizer.state[parameter]["own"] = UNKNOWN[kind](parameter)
    before = copy.deepcopy(optimizer.state[parameter]) if kind in ("bytes", "flat", "preconditioner") else None
    state = OptimizerState()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(3):
            moved(optimizer, parameter, state=state)
    (message,) = (str(warning.message) for warning in said)
    assert re.fullmatch(r"SGD has states of codes that cannot be updated .* left unchanged: 'own' \(.*\)", message)
    if before is not None:
        assert torch.equal(optimizer.state[parameter]["own"], before["own"])


def test_states_that_are_of_no_code_are_not_mentioned() -> None:
    parameter = codes()
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    own = {
        "step": torch.ones(()),
        "momentum_buffer": None,
        "count": 3,
        "right": torch.eye(DIM),
        "exp_avg_sq_col": torch.randn(DIM),
        "qmap1": torch.randn(SIZE),
        "unorm_vec": torch.ones(1),
    }
    optimizer.state[parameter] = copy.deepcopy(own)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        moved(optimizer, parameter)
    assert str(optimizer.state[parameter]) == str(own)


class Wrapper:
    """As accelerate's and Lightning's: no optimizer itself."""

    def __init__(self, optimizer: object, name: str) -> None:
        self.__dict__[name] = optimizer

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return next(iter(vars(self).values())).param_groups


@pytest.mark.parametrize("names", [["optimizer"], ["optim"], ["_optimizer"], ["optim", "optimizer"]])
def test_a_wrapped_optimizer_is_reached(names: list[str]) -> None:
    """Whatever it is wrapped in, and after its state was loaded, which makes another dictionary."""
    quantizer = VectorQuantizer(DIM, SIZE)
    inner = torch.optim.Adam(quantizer.parameters())
    optimizer: Any = inner
    for name in names:
        optimizer = Wrapper(optimizer, name)
    replacement = DeadCodeReplacement(quantizer, optimizer, threshold=0.5, decay=0.0)
    step(inner)
    inner.load_state_dict(inner.state_dict())
    x = 50 + torch.randn(40, DIM)
    before = quantizer.embedding.detach().clone()
    quantizer(x)
    assert replacement.step() > 0
    moments = inner.state[quantizer.embedding]["exp_avg"]
    assert torch.equal((moments == 0).all(1), (quantizer.embedding != before).any(1))


def test_a_training_beside_eight_bits_goes_on() -> None:
    """Replacement within the loop, with every step's codes finite."""
    model = nn.Sequential(nn.Linear(4, 4), VectorQuantizer(4, SIZE))
    optimizer = EightBit(list(model.parameters())[2:])
    replacement = DeadCodeReplacement(model, optimizer, threshold=0.5, decay=0.5)
    replaced = 0
    for seed in range(4):
        out = model(batch(30, seed=seed))
        out.loss.backward()
        optimizer.step()
        replaced += replacement.step()
    assert replaced > 0
    assert model[1].codebook.isfinite().all()
