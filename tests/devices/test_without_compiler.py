"""The contract in a process without Triton and without a compiler (plain_process.py)."""

import pytest

from tests.devices.own_process import run_tests


@pytest.mark.slow
def test_the_contract_without_triton_and_compiler(effort: list[str]) -> None:
    files = [f"tests/contract/test_{name}.py" for name in ("output", "state", "missing")]
    run_tests("tests.devices.plain_process", *effort, "--hypothesis-profile=brief", *files)
