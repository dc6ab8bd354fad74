"""Whether a module keeps to a contract: the module and an adapter run on the same vectors."""

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from quantizers.adapters.bases.adapter import Adapter
from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.building import build
from quantizers.adapters.checking.preserving import preserved
from quantizers.adapters.checking.results import Comparison, described
from quantizers.adapters.devices import device_of, dtype_of, is_on_meta
from quantizers.core.base import Quantizer


class MismatchError(ValueError):
    """A module has the name and the attributes of a contract, but models call it in another way."""


def check_contract(original: nn.Module, contract: type[Adapter]) -> None:
    """Check that a module answers all calls of a contract as an adapter does, and has no further methods.

    The module and an adapter run on the same random vectors, in evaluation and without gradients; the module is
    left as it was. The adapter holds the contract's reference quantizer, with the module's codes if they can be
    copied; then values are compared, too. A module without values (on `meta`) is compared in shapes, in those of
    the calls that need none.

    Raises: MismatchError that says what differs.
    """
    _check_methods(original, contract)
    spec = contract.read_spec(original)
    reference, kept = _reference(original, contract, spec)
    z = _example(original, contract, spec)
    with preserved(original):
        codes = _codes(original, contract)
        answers, stop = _answers(original, contract, z)
        moved = _codes(original, contract)
    stay = codes is not None and moved is not None and torch.equal(codes, moved)
    with preserved(original):  # adapters may share its projections
        adapter = contract(reference, original).to(dtype_of(original))
        given, _ = _answers(adapter._apply(lambda tensor: tensor.to(z.device)), contract, z)
    # In half precision roundings decide many choices; a run that moves codes does not show those that are kept.
    compares = kept and stay and not contract.samples and z.dtype == torch.float32
    comparison = Comparison(z.numel() // spec.dim, compares)
    if z.is_meta:
        stop, answers = None, {call: answer for call, answer in answers.items() if call in given}
    for call, answer in answers.items():
        for place, words in comparison.differences(answer, given.get(call)):
            what = f"{call} returns {described(answer)}: {place}" if place else f"the result of {call}"
            raise MismatchError(f"{what} {words}")
    if stop is not None:
        last = f"after {next(reversed(answers))} " if answers else ""
        raise MismatchError(f"{last}it raises {type(stop).__name__} when called as the contract says: {stop}")


def _check_methods(original: nn.Module, contract: type[Adapter]) -> None:
    lacking = sorted(_public_methods(type(original)) - set(dir(contract)) - set(contract.omitted_methods))
    if lacking:
        raise MismatchError(f"it has {' and '.join(lacking)}, which the contract lacks")


def _public_methods(cls: type) -> set[str]:
    """The public methods and properties of a class and its bases, without those of PyTorch and Python."""
    own = [
        base for base in cls.__mro__ if base.__module__.split(".")[0] not in ("torch", "builtins", "abc", "typing")
    ]
    kinds = (property, classmethod, staticmethod)
    return {
        name
        for base in own
        for name, value in vars(base).items()
        if not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, kinds))
    }


def _reference(original: nn.Module, contract: type[Adapter], spec: QuantizerSpec) -> tuple[Quantizer, bool]:
    """A quantizer that does what the original does, and whether it has the original's codes."""
    with warnings.catch_warnings(), _seeded_on_cpu():
        warnings.simplefilter("ignore")  # they tell of codes that a user keeps
        if not is_on_meta(original):
            try:
                kept = build(spec, contract.reference, {}, True)
                contract.copy_codebook(original, kept)
                return kept, True
            except ValueError:
                pass  # its codes cannot be copied
        return build(spec, contract.reference, {}, False), False


def _codes(original: nn.Module, contract: type[Adapter]) -> Tensor | None:
    """A copy of a module's codes; None if it has no single table of them, or no values."""
    if is_on_meta(original):
        return None
    try:
        return contract.trained_codebook(original).detach().clone()
    except ValueError:
        return None


def _example(original: nn.Module, contract: type[Adapter], spec: QuantizerSpec) -> Tensor:
    with _seeded_on_cpu():
        z = contract.example(original, spec)
    return z.to("meta" if is_on_meta(original) else device_of(original), dtype_of(original))


def _answers(module: nn.Module, contract: type[Adapter], z: Tensor) -> tuple[dict[str, Any], Exception | None]:
    """What a module answers to the contract's calls, and the exception that stopped them, if one did."""
    answers: dict[str, Any] = {}
    module.eval()
    with torch.no_grad(), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.default_generator.manual_seed(0)  # torch.manual_seed would seed all devices
        try:
            for call, answer in contract.calls(module, z):
                answers[call] = answer
        except Exception as error:
            return answers, error
    return answers, None


@contextmanager
def _seeded_on_cpu() -> Iterator[None]:
    """A context in which new tensors are on the CPU and the same each time; random generators are left alone."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(0)
        yield
