"""The statistics of a random projection over ranks: those of one process on all their vectors."""

import pytest
import torch
from torch import Tensor

from quantizers import RandomProjectionQuantizer
from tests.cases import normal
from tests.distributed.ranks import Ranks, World

EPS = torch.finfo(torch.float32).eps


def statistics_of(world: World, shards: list[Tensor]) -> tuple[Tensor, Tensor]:
    with world.joined():
        quantizer = RandomProjectionQuantizer(4, 8)
        quantizer.initialize_from(shards[world.rank])
    return quantizer.project_in.mean, quantizer.project_in.deviation


def error_of(world: World, shards: list[Tensor]) -> str:
    with world.joined(), pytest.raises(ValueError, match="no vector counts") as raised:
        RandomProjectionQuantizer(4, 8).initialize_from(shards[world.rank])
    return str(raised.value)


def test_statistics_are_those_of_one_process(ranks: Ranks) -> None:
    x = 5 + normal(0, 100, 4, dtype=torch.float32)
    x[7] = torch.nan
    found = ranks.run(3, statistics_of, list(x.split([0, 70, 30])))
    counted = x[x.isfinite().all(-1)].double()
    for mean, deviation in found:
        assert torch.equal(mean, found[0][0])
        assert torch.equal(deviation, found[0][1])
        # Sums are float64; the buffers round once.
        torch.testing.assert_close(mean.double(), counted.mean(0), rtol=EPS, atol=0)
        torch.testing.assert_close(deviation.double(), counted.std(0, correction=0), rtol=EPS, atol=0)


def test_every_rank_says_that_no_vector_counts(ranks: Ranks) -> None:
    assert len(set(ranks.run(2, error_of, [torch.full((3, 4), torch.nan), torch.zeros(0, 4)]))) == 1
