"""The script that runs vector-quantize-pytorch's own tests: what it plugs in where, and its table."""

from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.peers.vector_quantize_pytorch import ALIKE, KEEPING, Plugin, contract_modules, swapped, table
from quantizers.adapters import plugged

package = pytest.importorskip("vector_quantize_pytorch", reason="the extra `peers` has it")


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("VectorQuantize", {"codebook_size": 8}, {"": "EMAVectorQuantizer"}),
        ("VectorQuantize", {"codebook_size": 8, "learnable_codebook": True, "ema_update": False},
         {"": "VectorQuantizer"}),
        ("VectorQuantize", {"codebook_size": 8, "directional_reparam": True, "threshold_ema_dead_code": 2},
         {"": "DiVeQ"}),
        ("ResidualVQ", {"codebook_size": 8, "num_quantizers": 2}, {"": "ResidualQuantizer"}),
        ("ResidualVQ", {"codebook_size": 8, "num_quantizers": 2, "implicit_neural_codebook": True}, {"": "QINCo"}),
        ("GroupedResidualVQ", {"codebook_size": 8, "num_quantizers": 2, "groups": 2},
         {"rvqs.0": "ResidualQuantizer", "rvqs.1": "ResidualQuantizer"}),
        ("LFQ", {"codebook_size": 8, "spherical": True}, {"": "BSQ"}),
        ("FSP", {"levels": [5, 4]}, {"": "FSP"}),
    ],
)  # fmt: skip
def test_each_class_gets_what_does_as_it_does(
    name: str, options: dict[str, Any], expected: dict[str, str]
) -> None:
    model = getattr(package, name)(dim=8, **options)
    assert list(contract_modules(model)) == list(expected)
    found = {path: type(adapter.quantizer).__name__ for path, adapter in plugged(swapped(model, ALIKE)).items()}
    assert found == expected


def test_a_class_without_a_contract_is_left_alone() -> None:
    model = package.BinaryMapper(bits=4)
    assert swapped(model, "vq") is model
    assert not plugged(model)


def test_codes_are_kept_in_the_column_that_says_so() -> None:
    original = package.SimVQ(dim=8, codebook_size=8)
    assert swapped(original, KEEPING).codebook.equal(original.codebook)
    assert not swapped(original, "vq").codebook.equal(original.codebook)


def test_a_test_counts_only_if_it_builds_a_known_class(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in dir(package):
        monkeypatch.setattr(package, name, getattr(package, name))  # and back, after the plugin's patches
    plugin = Plugin("vq")
    plugin.pytest_configure()
    passed = SimpleNamespace(failed=False, skipped=False, when="call", nodeid="knows")
    failed = SimpleNamespace(failed=True, nodeid="fails", longrepr="ValueError: of <f at 0x7f75>")
    plugin.pytest_runtest_setup()
    package.BinaryMapper(bits=4)
    plugin.pytest_runtest_logreport(SimpleNamespace(failed=False, skipped=False, when="call", nodeid="other"))
    package.LFQ(codebook_size=8)
    plugin.pytest_runtest_logreport(passed)
    plugin.pytest_runtest_logreport(failed)
    assert plugin.reasons == {"knows": None, "fails": "ValueError: of <f>"}


def test_the_table_counts_and_says_why() -> None:
    results = {ALIKE: {"a": None, "b": "ValueError: no", "c": "ValueError: no"}, "vq": {"a": None}}
    lines = table(results).splitlines()
    assert "| like for like | 1 of 3 |" in lines
    assert "| vq | 1 of 1 |" in lines
    assert lines[-1] == "2 × ValueError: no"
