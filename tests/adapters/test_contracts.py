"""The table of contracts in `quantizers/adapters/contracts/__init__.py` lists those that are registered."""

from quantizers.adapters import Adapter
from quantizers.adapters import contracts as package
from quantizers.adapters.recognition import _CONTRACTS

OWN = {name: adapter for name, adapter in _CONTRACTS.items() if adapter.__module__.startswith(package.__name__)}


def listed() -> dict[str, list[str]]:
    """The classes in the table by contract; a row without a contract continues the one before."""
    rows = [line.strip("|").split("|") for line in (package.__doc__ or "").splitlines() if line.startswith("| ")]
    found: dict[str, list[str]] = {}
    name = ""
    for contract, _, classes in rows[1:]:
        name = contract.strip() or name
        found.setdefault(name, []).extend(part.strip() for part in classes.split(",") if part.strip())
    return found


def test_the_table_lists_the_contracts_and_their_classes() -> None:
    assert listed() == {name: list(OWN[name].classes) for name in sorted(OWN)}


def test_each_docstring_names_what_it_replaces_and_where_the_source_is() -> None:
    """The package or library, with the classes, and a source."""
    for name, adapter in OWN.items():
        own = vars(adapter).get("__doc__") or ""
        assert own.startswith("Replaces "), name
        assert "Source: " in own, name
        assert adapter.classes[0] in own, name
        assert issubclass(adapter, Adapter)
