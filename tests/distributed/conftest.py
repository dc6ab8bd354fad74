"""One set of worker processes for all scenarios: each takes seconds to import PyTorch."""

from collections.abc import Iterator

import pytest
import torch

from quantizers import EMAVectorQuantizer
from tests.distributed.ranks import Ranks


@pytest.fixture(scope="session")
def ranks() -> Iterator[Ranks]:
    EMAVectorQuantizer(1, 1)(torch.zeros(1, 1))  # compiles the operations, before the ranks' time runs
    ranks = Ranks()
    yield ranks
    ranks.stop()
