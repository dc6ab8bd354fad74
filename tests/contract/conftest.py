"""The contract holds under the reference and under what a CPU takes by itself.

The blocked search, which the reference's other operations go with, has the tests in tests/kernels and its turns in
tests/robustness/test_fuzz.py.
"""

from collections.abc import Iterator

import pytest

from tests.implementations import under


@pytest.fixture(autouse=True, params=["reference", "compiled"])
def implementation(request: pytest.FixtureRequest) -> Iterator[str]:
    with under(request.param):
        yield request.param
