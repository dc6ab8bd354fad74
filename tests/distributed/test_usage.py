"""Codebook use over ranks: that of all vectors, wherever they were seen."""

import torch
from torch import Tensor

import quantizers
from quantizers.monitoring.usage import CodebookUsage
from quantizers.monitoring.watch import watch
from tests.cases import DIM, batch
from tests.distributed.ranks import Ranks, World

SHARES = [[30, 5], [0, 7], [0, 0]]  # vectors of each rank in each epoch


def built() -> quantizers.Quantizer:
    torch.manual_seed(0)
    return quantizers.create("residual", dim=DIM, codebook_size=16, num_quantizers=2)


def shard(rank: int, epoch: int) -> Tensor:
    return batch(SHARES[epoch][rank], seed=10 * epoch + rank)


def epochs(world: World) -> list[tuple[dict[str, Tensor], dict[str, Tensor], list[int]]]:
    """By the watch, and by the metric; a rank without vectors runs no forward."""
    results = []
    with world.joined():
        quantizer = built()
        usage = CodebookUsage.of(quantizer)
        watched = watch(quantizer)
        for epoch in range(len(SHARES)):
            usage.reset()
            watched.reset()
            x = shard(world.rank, epoch)
            indices = quantizer(x).indices if len(x) else torch.zeros(0, 2, dtype=torch.int64)
            usage.update(indices)
            watched.compute()  # in the midst of an epoch; what is summed must not be summed again
            results.append((watched.compute()[""], usage.compute(), [int(c.sum()) for c in usage.counts]))
    return results


def test_every_rank_has_the_numbers_of_all_vectors(ranks: Ranks) -> None:
    """With uneven shards, empty ones, and an epoch without a vector; counts themselves stay each rank's own."""
    quantizer = built()
    for rank, answers in enumerate(ranks.run(2, epochs)):
        for epoch, (watched, by_metric, own) in enumerate(answers):
            usage = CodebookUsage.of(quantizer)
            usage.update(torch.cat([quantizer(shard(other, epoch)).indices for other in range(2)]))
            expected = usage.compute()
            for results in (watched, by_metric):
                assert all(torch.equal(results[key], expected[key]) for key in expected)
            assert own == [SHARES[epoch][rank]] * 2
