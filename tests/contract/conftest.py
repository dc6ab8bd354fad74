"""The contract holds under every implementation of the operations."""

from collections.abc import Iterator

import pytest

from tests.implementations import under


@pytest.fixture(autouse=True, params=["reference", "blocked", "compiled"])
def implementation(request: pytest.FixtureRequest) -> Iterator[str]:
    with under(request.param):
        yield request.param
