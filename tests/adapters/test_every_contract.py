"""Laws of all contracts: plug_in finds each, leaves its original as it was, and refuses what answers otherwise."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from quantizers import plug_in, unplug
from quantizers.adapters.bases.adapter import Adapter
from quantizers.adapters.checking.contract import check_contract
from quantizers.adapters.recognition import _CONTRACTS, contracts_of
from tests.adapters.common import METHODS, one_in_three
from tests.adapters.originals import ORIGINALS, OWN_CONTRACTS

every_original = pytest.mark.parametrize("contract", ORIGINALS)


def pairs() -> Any:
    """Each contract with each of the main methods: a third of them in `make test`, the others in `make fuzz`."""
    found = [
        pytest.param(contract, name, marks=one_in_three(row, column))
        for row, contract in enumerate(ORIGINALS)
        for column, name in enumerate(METHODS)
    ]
    return pytest.mark.parametrize(("contract", "name"), found)


with_methods = pairs()


def plugged(contract: str, name: str, **options: Any) -> tuple[Any, Any]:
    """An original of a contract, and the adapter that replaces it."""
    model = nn.Sequential(ORIGINALS[contract]())
    original = model[0]
    return original, plug_in(model, name, **options)[0]


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def equal(a: Any, b: Any) -> bool:
    """Whether two results are the same, bit for bit."""
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(equal(*pair) for pair in zip(a, b, strict=True))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    return bool(vars(a).keys() == vars(b).keys()) if hasattr(a, "__dict__") else bool(a == b)


@torch.no_grad()
def answers(contract: str, module: Any, original: Any) -> list[Any]:
    """What a module in evaluation answers to all calls of a contract."""
    adapter = _CONTRACTS[contract]
    torch.manual_seed(0)
    z = adapter.example(original, adapter.read_spec(original))
    return [answer for _, answer in adapter.calls(module.eval(), z)]


def test_every_contract_has_an_original() -> None:
    assert set(ORIGINALS) == set(OWN_CONTRACTS)


@every_original
def test_an_original_is_recognized_and_left_as_it_was(contract: str) -> None:
    """By its own contract; no tensor, mode, attribute or generator has changed."""
    original = ORIGINALS[contract]().train()
    before, attributes = state(original), {name: dict(vars(part)) for name, part in original.named_modules()}
    generator = torch.get_rng_state()
    check_contract(original, _CONTRACTS[contract])
    assert _CONTRACTS[contract] in contracts_of(original)
    after = state(original)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    for name, part in original.named_modules():
        assert part.training
        assert vars(part).keys() == attributes[name].keys()
        assert all(vars(part)[key] is value for key, value in attributes[name].items())
    assert torch.equal(torch.get_rng_state(), generator)


@every_original
def test_plug_in_finds_the_contract_by_itself(contract: str) -> None:
    original, adapter = plugged(contract, _CONTRACTS[contract].reference)
    assert adapter.contract == contract
    assert adapter.original is original


@with_methods
def test_a_saved_quantizer_answers_as_before(contract: str, name: str) -> None:
    """Its weights in a new adapter, built with other random numbers, give the same results bit for bit."""
    original, adapter = plugged(contract, name)
    expected = answers(contract, adapter, original)
    torch.manual_seed(99)
    other_original, other = plugged(contract, name)
    other.load_state_dict(adapter.state_dict())
    assert all(equal(*pair) for pair in zip(answers(contract, other, other_original), expected, strict=True))


@with_methods
def test_a_step_of_training_reaches_the_quantizer(contract: str, name: str) -> None:
    """In the output of its first call or in its own; the parameters that learn get finite gradients."""
    original, adapter = plugged(contract, name)
    z = _CONTRACTS[contract].example(original, _CONTRACTS[contract].read_spec(original))
    x = z.clone().requires_grad_()
    adapter.train()
    quantizer = adapter.quantizer
    seen: list[Any] = []
    quantizer.register_forward_hook(lambda _, inputs, output: seen.append(output))
    next(iter(_CONTRACTS[contract].calls(adapter, x)))
    if not seen:  # models that pass on codes alone are trained by calls of the quantizer itself
        positions = (8,) * _CONTRACTS[contract].positions
        shape = {1: (2, quantizer.dim, *positions), 2: (2, 8, quantizer.dim, 8, 8), -1: (2, 8, quantizer.dim)}
        seen.append(quantizer(torch.randn(shape[quantizer.channel_dim], requires_grad=True)))
    output = seen[0]
    (output.quantized.square().sum() + output.loss).backward()
    gradients = [parameter.grad for parameter in quantizer.parameters() if parameter.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert gradients or not any(parameter.requires_grad for parameter in quantizer.parameters())


@every_original
def test_unplug_puts_back_the_original_as_it_was(contract: str) -> None:
    model = nn.Sequential(ORIGINALS[contract]())
    original, before = model[0], state(model)
    plug_in(model, _CONTRACTS[contract].reference)
    assert unplug(model)[0] is original
    after = state(model)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def changed(module: nn.Module, change: Callable[[list[Any]], Any]) -> nn.Module:
    """A copy whose methods return something else: each result of its class is passed to `change` in a list."""
    base = type(module)
    other = copy.deepcopy(module)

    def of(name: str) -> Callable[..., Any]:
        def method(self: Any, *given: Any, **named: Any) -> Any:
            return change([getattr(base, name)(self, *given, **named)])

        return method

    names = ("forward", "encode", "decode", "f_to_idxBl_or_fhat")
    methods = {name: of(name) for name in names if callable(getattr(base, name, None))}
    other.__class__ = type(base.__name__, (base,), methods)
    return other


CHANGES: dict[str, Callable[[list[Any]], Any]] = {
    "one value more": lambda found: (found[0], None),
    "nothing": lambda found: None,
    "an exception": lambda found: found[1],
}


@every_original
@pytest.mark.parametrize("change", CHANGES)
def test_a_class_that_answers_otherwise_is_refused(contract: str, change: str) -> None:
    """It has the name and the attributes of the contract. The model is left alone, and the class is named."""
    model = nn.Sequential(changed(ORIGINALS[contract](), CHANGES[change]))
    modules, before = list(model.modules()), state(model)
    with pytest.raises(
        ValueError, match=rf"at '0' is {type(model[0]).__name__} of .*another way .*register_contract"
    ):
        plug_in(model, _CONTRACTS[contract].reference)
    assert list(model.modules()) == modules
    assert all(torch.equal(tensor, before[name]) for name, tensor in state(model).items())


@every_original
def test_a_class_with_a_method_that_the_contract_lacks_is_refused(contract: str) -> None:
    """As WavTokenizer's `infer`, which its model calls and EnCodec's does not have."""
    original = ORIGINALS[contract]()
    original.__class__ = type(type(original).__name__, (type(original),), {"transmogrify": lambda self: None})
    with pytest.raises(ValueError, match="it has transmogrify, which the contract lacks"):
        plug_in(nn.Sequential(original), _CONTRACTS[contract].reference)


def scramble(found: Any) -> None:
    """Put the values of tensors in another order, in place."""
    if isinstance(found, Tensor):
        found.copy_(found.flatten().flip(0).reshape(found.shape))
    elif isinstance(found, list | tuple):
        for part in found:
            scramble(part)
    elif isinstance(found, dict):
        scramble(list(found.values()))


def keeps_codes(contract: str) -> bool:
    """Whether the contract can copy codes, and compares what they give."""
    adapter, original = _CONTRACTS[contract], ORIGINALS[contract]()
    try:
        plug_in(nn.Sequential(original), adapter.reference, keep_codebook=True)
    except ValueError:
        return False
    return not adapter.samples


@every_original
def test_other_values_are_refused(contract: str) -> None:
    """A class whose results have the right shapes."""
    if not keeps_codes(contract):
        pytest.skip("its codes cannot be copied, so there are no values to compare")

    def scrambled(found: list[Any]) -> Any:
        scramble(found)
        return found[0]

    with pytest.raises(ValueError, match="has other values than the contract gives with the same codes"):
        plug_in(nn.Sequential(changed(ORIGINALS[contract](), scrambled)), _CONTRACTS[contract].reference)


@every_original
def test_a_frozen_model_stays_frozen(contract: str) -> None:
    """Its new quantizer has no parameter that learns, and a warning says so; with `trainable` as it is asked."""
    for trainable in (None, False, True):
        model = nn.Sequential(nn.Linear(2, 2), ORIGINALS[contract]()).requires_grad_(False)
        call = {"at": "1", "trainable": trainable}
        if trainable is None:
            with pytest.warns(UserWarning, match="the model is frozen at '1'.*pass trainable=True"):
                plug_in(model, "vq", **call)
        else:
            plug_in(model, "vq", **call)
        assert model[1].quantizer.frozen == (not trainable)
        learns = [parameter.requires_grad for parameter in model[1].quantizer.parameters()]
        assert all(learns) if trainable else not any(learns)


def test_an_adapter_has_what_its_contract_calls() -> None:
    for name in OWN_CONTRACTS:
        assert issubclass(_CONTRACTS[name], Adapter)
        assert _CONTRACTS[name].positions in (1, 2, 3)
