"""The library on a device without float64, emulated (emulated.py)."""

from pathlib import Path

import pytest

from tests.devices.own_process import run_tests

FOLDER = Path(__file__).parent / "without_float64"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(file.name for file in FOLDER.glob("test_*.py")))
def test_on_a_device_without_float64(name: str) -> None:
    run_tests("tests.devices.emulated", f"tests/devices/without_float64/{name}")


@pytest.mark.slow
@pytest.mark.long("a variation of a method")
def test_every_variation_on_a_device_without_float64() -> None:
    run_tests("tests.devices.emulated", "tests/devices/without_float64/test_contract.py", "-m", "long")
