"""The contract in a process without Triton and without a compiler (plain_process.py)."""

import pytest

from tests.devices.own_process import run_tests


@pytest.mark.slow
@pytest.mark.parametrize("name", ["output", "state", "missing"])
def test_the_contract_without_triton_and_compiler(name: str) -> None:
    run_tests("tests.devices.plain_process", f"tests/contract/test_{name}.py", "--hypothesis-profile=brief")
