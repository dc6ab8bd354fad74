"""The contract holds under the reference and under what a CPU takes by itself: for tests that use this fixture.

The blocked search, which the reference's other operations go with, has the tests in tests/kernels and its turns in
tests/robustness/test_fuzz.py.
"""

from collections.abc import Iterator

import pytest

from tests.implementations import under


@pytest.fixture(params=[pytest.param("reference", marks=pytest.mark.foundations), "compiled"])
def implementation(request: pytest.FixtureRequest) -> Iterator[str]:
    with under(request.param):
        yield request.param
