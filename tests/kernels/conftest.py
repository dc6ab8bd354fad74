"""Tests of the operations run under every implementation that runs on a CPU: those that use this fixture."""

from collections.abc import Iterator

import pytest

from tests.implementations import IMPLEMENTATIONS, under


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request: pytest.FixtureRequest) -> Iterator[str]:
    with under(request.param):
        yield request.param
