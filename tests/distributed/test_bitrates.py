"""A number of codebooks drawn for each step, on each rank another, as EnCodec is trained: under DDP as it is."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import quantizers
from tests.cases import DIM
from tests.distributed.ranks import Ranks, World

STAGES, SIZE, VECTORS = 3, 8, 20
DRAWN = [(3, 1), (1, 2), (2, 3), (1, 1)]  # codebooks in each step, on each of two ranks
KINDS = ["vq", "ema_vq", "simvq", "gumbel", "fsq", "grouped", "qinco"]


class Codec(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.encoder = nn.Linear(DIM, DIM)
        small = {"num_quantizers": 2, "hidden_dim": 8, "blocks": 1} if kind == "qinco" else {}
        stages = [quantizers.create(kind, dim=DIM, codebook_size=SIZE, **small) for _ in range(STAGES)]
        self.quantizer = quantizers.ResidualQuantizer(DIM, stages)

    def forward(self, x: Tensor, stages: int) -> Tensor:
        count = stages * self.quantizer.components[0].num_codebooks
        out = self.quantizer(self.encoder(x), num_codebooks=count)
        return (out.quantized - x).square().mean() + out.loss


def inputs(step: int, rank: int) -> Tensor:
    return torch.randn(VECTORS, DIM, generator=torch.Generator().manual_seed(10 * step + rank))


def train(world: World, kind: str) -> tuple[dict[str, Tensor], list[dict[str, Tensor]], list[dict[str, Tensor]]]:
    """The first state, the gradients of each step, and the state after each."""
    with world.joined():
        torch.manual_seed(0)
        codec = Codec(kind)
        first = copy.deepcopy(codec.state_dict())
        model, optimizer = DistributedDataParallel(codec), torch.optim.SGD(codec.parameters(), 0.1)
        gradients, states = [], []
        for step, drawn in enumerate(DRAWN):
            torch.manual_seed(100 * step + world.rank)
            model(inputs(step, world.rank), drawn[world.rank]).backward()
            gradients.append({name: p.grad.clone() for name, p in codec.named_parameters()})
            optimizer.step()
            optimizer.zero_grad()
            states.append(copy.deepcopy(codec.state_dict()))
        del model
    return first, gradients, states


@pytest.mark.parametrize("kind", KINDS)
def test_each_rank_draws_its_own(ranks: Ranks, kind: str) -> None:
    """State and gradients are bit-equal on both; the gradients are the mean of what each rank has alone."""
    (first, gradients, states), (_, *of_the_other) = ranks.run(2, train, kind)
    for ours, theirs in ((gradients, of_the_other[0]), (states, of_the_other[1])):
        for step, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            assert all(torch.equal(mine[name], other[name]) for name in mine), f"step {step}"
    for step, before in enumerate([first, *states[:-1]]):
        alone = [alone_on(kind, before, step, rank) for rank in (0, 1)]
        for name, gradient in gradients[step].items():
            expected = (alone[0][name] + alone[1][name]) / 2
            torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def alone_on(kind: str, state: dict[str, Tensor], step: int, rank: int) -> dict[str, Tensor]:
    """The gradients that a rank has in one process."""
    codec = Codec(kind)
    codec.load_state_dict(state)
    torch.manual_seed(100 * step + rank)
    codec(inputs(step, rank), DRAWN[step][rank]).backward()
    return {name: p.grad for name, p in codec.named_parameters()}


def test_averages_count_the_vectors_of_the_ranks_that_use_a_stage(ranks: Ranks) -> None:
    (first, _, states), _ = ranks.run(2, train, "ema_vq")
    for drawn, before, after in zip(DRAWN, [first, *states], states, strict=False):
        for place in range(STAGES):
            name = f"quantizer.quantizers.{place}.cluster_size"
            seen = VECTORS * sum(count > place for count in drawn)
            expected = 0.99 * before[name].sum() + 0.01 * seen if seen else before[name].sum()
            torch.testing.assert_close(after[name].sum(), expected)
