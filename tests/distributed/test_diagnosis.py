"""One rank diagnoses a model in DistributedDataParallel alone: no other rank needs to take part."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import quantizers
from tests.cases import DIM, batch
from tests.distributed.ranks import Ranks, World

NAMES = ("ema_vq", "lfq", "residual")  # of which training sums over the ranks


def built(name: str) -> nn.Module:
    torch.manual_seed(0)
    options = {"quantizer": "ema_vq"} if name == "residual" else {}
    return nn.Sequential(nn.Linear(DIM, DIM), quantizers.create(name, DIM, 16, **options))


def loss(model: nn.Module, x: Tensor) -> Tensor:
    out = model(x)
    return out.quantized.square().mean() + out.loss


def on_the_second_rank(world: World) -> list[dict[str, Any]]:
    results = []
    with world.joined():
        for name in NAMES:
            model = DistributedDataParallel(built(name))
            if world.rank == 1:
                results.append(quantizers.diagnose(model, [batch(60)], loss=loss).to_dict())
            del model
    return results


def test_a_rank_needs_no_other(ranks: Ranks) -> None:
    """And has the numbers of the model without its wrapper."""
    _, found = ranks.run(2, on_the_second_rank)
    assert found == [quantizers.diagnose(built(name), [batch(60)], loss=loss).to_dict() for name in NAMES]
