"""Every test in this folder runs under every implementation that runs on a CPU."""

from collections.abc import Iterator

import pytest

from tests.implementations import IMPLEMENTATIONS, under


@pytest.fixture(autouse=True, params=IMPLEMENTATIONS)
def implementation(request: pytest.FixtureRequest) -> Iterator[str]:
    with under(request.param):
        yield request.param
