"""Choose the contract of a module: the one that its caller names, or one that the module was seen to keep."""

import warnings

from torch import nn

from quantizers.adapters.bases.adapter import Adapter
from quantizers.adapters.checking.contract import MismatchError, check_contract
from quantizers.adapters.recognition import (
    LISTED,
    contract_named,
    contracts_of,
    overridden_methods,
)


def choose_contract(path: str, module: nn.Module, name: str | None) -> type[Adapter]:
    """The contract named `name`; without a name one that recognizes the module at a path and passes
    `check_contract`. An adapter keeps its own.

    Raises: ValueError if there is none.
    """
    if name is not None:
        return contract_named(name)
    recognizing = contracts_of(module)
    if not recognizing:
        raise ValueError(
            f"at {path!r} is {type(module).__name__}, which follows no known contract; pass contract=, {LISTED}"
        )
    if isinstance(module, Adapter):
        return recognizing[0]
    mismatches: list[str] = []
    unsupported: list[ValueError] = []
    for contract in recognizing:
        try:
            check_contract(module, contract)
            return contract
        except MismatchError as mismatch:
            mismatches.append(f"it looks like contract {contract.contract!r}, but {mismatch}")
        except ValueError as error:  # a setting that this contract does not support
            unsupported.append(error)
    if unsupported:
        raise unsupported[0]
    cls = type(module)
    raise ValueError(
        f"at {path!r} is {cls.__name__} of {cls.__module__}, which the model calls in another way than the known "
        f"contracts: {'; '.join(mismatches)}. The model is unchanged. If it calls its quantizer as one of these "
        "contracts says all the same, pass contract=; otherwise write an adapter, see "
        "quantizers.adapters.register_contract"
    )


def warn_of_overrides(path: str, module: nn.Module, contract: type[Adapter]) -> None:
    """Warn of methods that a module's class overrides in the class that a contract replaces."""
    overridden = overridden_methods(module, contract)
    if overridden:
        warnings.warn(
            f"at {path!r} is {type(module).__name__}, which overrides {', '.join(overridden)}; contract "
            f"{contract.contract!r} replaces {'it' if len(overridden) == 1 else 'them'} by its own",
            stacklevel=5,
        )
