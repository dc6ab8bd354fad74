"""Codes that a mask freezes, over ranks: they stay on all of them, and the others move alike."""

import torch
from torch import Tensor

import quantizers
from quantizers import DeadCodeReplacement, warm_start
from tests.cases import DIM, batch, normal, state_of
from tests.distributed.ranks import Ranks, World

SIZE = 12
MASK = torch.arange(SIZE) % 3 == 0


def codes() -> Tensor:
    return normal(0, SIZE, DIM, dtype=torch.float32)


def trained(world: World, name: str) -> tuple[dict[str, Tensor], Tensor]:
    """The state and the codes after k-means and three steps with replacement, on vectors of each rank's own."""
    with world.joined():
        quantizer = quantizers.create(name, DIM, codebook=codes(), frozen=MASK)
        torch.manual_seed(world.rank)
        warm_start(quantizer, [batch(40, seed=50 + world.rank)])
        parameters = [*quantizer.parameters(), torch.nn.Parameter(torch.zeros(1))]
        optimizer = torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.5)
        replacement = DeadCodeReplacement(quantizer, optimizer, threshold=100.0)
        for step in range(3):
            quantizer(batch(20, seed=10 * step + world.rank))
            moved = replacement.step()
            assert moved == SIZE - int(MASK.sum())
        return state_of(quantizer), quantizer.codebook.detach().clone()


def test_frozen_codes_stay_on_all_ranks_and_the_others_are_equal(ranks: Ranks) -> None:
    for name in ("vq", "ema_vq"):
        (first, own), (second, theirs) = ranks.run(2, trained, name)
        assert torch.equal(own, theirs)
        assert all(torch.equal(first[key], second[key]) for key in first)
        assert torch.equal(own[MASK], codes()[MASK])
        assert (own != codes()).any(-1)[~MASK].all()
