"""The library on a device without float64, emulated (emulated.py)."""

import pytest
from torch.utils import backend_registration

from tests.devices.own_process import run_tests

pytestmark = pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this PyTorch takes no device type that is written in Python",
)
FOLDER = "tests/devices/without_float64"
CONTRACT = f"{FOLDER}/test_contract.py"


@pytest.mark.slow
def test_the_contract_on_a_device_without_float64(effort: list[str]) -> None:
    run_tests("tests.devices.emulated", *effort, CONTRACT)


@pytest.mark.slow
@pytest.mark.long("a variation of a method")
def test_the_contract_of_every_variation_on_a_device_without_float64() -> None:
    run_tests("tests.devices.emulated", CONTRACT, "-m", "long")


@pytest.mark.long("an end-to-end run")
@pytest.mark.slow
def test_what_surrounds_the_contract_on_a_device_without_float64(effort: list[str]) -> None:
    files = [f"{FOLDER}/test_{name}.py" for name in ("stand_in", "operations", "training")]
    run_tests("tests.devices.emulated", *effort, *files)
