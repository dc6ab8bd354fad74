"""The batch entropy of bits over ranks: the gradient of one process, from shards of any size."""

import copy

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from quantizers import BSQ, LFQ, create
from tests.cases import normal
from tests.distributed.ranks import Ranks, World

BITS = 6
FIRST_FAILURE = (Phase.explicit, Phase.generate)  # each further example of a deadlock would take its time limit
Step = tuple[Tensor, list[Tensor]]  # a loss and the gradients of the parameters


class Model(nn.Module):
    """A linear encoder and the batch entropy of its vectors alone: the entropies of single vectors cancel."""

    def __init__(self, name: str, group_bits: int, **options: object) -> None:
        super().__init__()
        self.encoder = nn.Linear(BITS, BITS).double()
        with torch.no_grad():
            self.encoder.weight.copy_(normal(3, BITS, BITS))
            self.encoder.bias.copy_(normal(4, BITS))
        common = {"dim": BITS, "codebook_size": 2**BITS, "commitment_weight": 0.0, "entropy_weight": 1.0}
        self.joint = create(name, **common, group_bits=group_bits, diversity=2.0, **options)
        self.each = create(name, **common, group_bits=group_bits, diversity=0.0, process_group=None)

    def forward(self, x: Tensor, mask: Tensor | None = None, checkpointed: bool = False) -> Tensor:
        z = self.encoder(x)
        if checkpointed:
            joint: Tensor = checkpoint(lambda z: self.joint(z, mask).loss, z, use_reentrant=False)
        else:
            joint = self.joint(z, mask).loss
        return joint - self.each(z, mask).loss


def parts_of(counts: list[int]) -> list[tuple[Tensor, Tensor]]:
    """Vectors and their mask for each rank; about one in four is masked."""
    return [(normal(10 + rank, count, BITS), normal(20 + rank, count) > -0.7) for rank, count in enumerate(counts)]


def gradients(model: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in model.parameters()]


def backward(world: World, model: Model, counts: list[int], weight: float, checkpointed: bool = False) -> Step:
    """The rank's loss, and the gradients after the backward pass of the loss times its weight, under DDP."""
    wrapped = DistributedDataParallel(model)
    loss = wrapped(*parts_of(counts)[world.rank], checkpointed=checkpointed)
    (weight * loss).backward()
    return loss.detach(), gradients(model)


def step(world: World, name: str, group_bits: int, counts: list[int], checkpointed: bool) -> Step:
    with world.joined():
        return backward(world, Model(name, group_bits), counts, 1.0, checkpointed)


@settings(phases=FIRST_FAILURE, deadline=None)
@given(
    name=st.sampled_from(["lfq", "bsq"]),
    group_bits=st.sampled_from([1, 2, 3, 6]),
    counts=st.lists(st.sampled_from([0, 1, 2, 7, 30]), min_size=2, max_size=3),
    checkpointed=st.booleans(),
)
def test_the_gradient_after_ddp_is_that_of_one_process(
    ranks: Ranks, name: str, group_bits: int, counts: list[int], checkpointed: bool
) -> None:
    """However unevenly the vectors are split, with ranks that have none, and where they are all masked."""
    results = ranks.run(len(counts), step, name, group_bits, counts, checkpointed)
    model = Model(name, group_bits)
    x, mask = (torch.cat(each) for each in zip(*parts_of(counts), strict=True))
    loss = model(x, mask)
    loss.backward()
    for actual, parameters in results:
        # Sums of fewer than a hundred terms of float64, each with factors 4/T below 25 and 1/‖z‖ below 10³.
        torch.testing.assert_close(actual, loss.detach(), rtol=0, atol=1e-11)
        for gradient, expected in zip(parameters, gradients(model), strict=True):
            torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-9)


def weighted(world: World, counts: list[int]) -> list[Tensor]:
    """Each rank weights its loss by its share of the vectors, as an exact mean over uneven shards needs."""
    with world.joined():
        share = counts[world.rank] * world.size / sum(counts)
        return backward(world, Model("lfq", 3), counts, share)[1]


def test_ranks_may_weight_their_losses(ranks: Ranks) -> None:
    """Weights whose mean is one leave the gradient as it is: it is the sum of what all ranks ask for."""
    counts = [3, 20]
    model = Model("lfq", 3)
    x, mask = (torch.cat(each) for each in zip(*parts_of(counts), strict=True))
    model(x, mask).backward()
    for parameters in ranks.run(2, weighted, counts):
        for gradient, expected in zip(parameters, gradients(model), strict=True):
            torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-9)


def alone(world: World) -> list[Tensor]:
    """With process_group=None in training, and in evaluation with "world": on the first rank alone."""
    losses = []
    with world.joined():
        if world.rank == 0:
            x = parts_of([9])[0][0]
            losses = [Model("bsq", 3, process_group=None)(x), Model("bsq", 3).eval()(x)]
    return [loss.detach() for loss in losses]


def test_a_rank_may_be_alone(ranks: Ranks) -> None:
    expected = Model("bsq", 3)(parts_of([9])[0][0]).detach()
    for loss in ranks.run(2, alone)[0]:
        torch.testing.assert_close(loss, expected, rtol=0, atol=0)


def compiled(world: World) -> list[Tensor]:
    """Losses and gradients in eager mode and from one graph."""
    x = parts_of([5, 8])[world.rank][0]
    results = []
    with world.joined():
        for quantizer in (LFQ(BITS, 2**BITS), BSQ(BITS, 2**BITS, group_bits=3)):
            torch.compiler.reset()
            for run in (quantizer, torch.compile(copy.deepcopy(quantizer), fullgraph=True, backend="aot_eager")):
                z = x.clone().requires_grad_()
                loss = run(z).loss
                loss.backward()
                results += [loss.detach(), z.grad]
    return results


def test_one_graph_has_the_all_reduces(ranks: Ranks) -> None:
    for results in ranks.run(2, compiled):
        for loss, gradient, compiled_loss, compiled_gradient in (results[:4], results[4:]):
            torch.testing.assert_close(compiled_loss, loss)
            torch.testing.assert_close(compiled_gradient, gradient)


@pytest.mark.parametrize("method", [LFQ, BSQ])
def test_the_group_may_be_assigned(method: type[LFQ] | type[BSQ]) -> None:
    quantizer = method(BITS, 2**BITS)
    assert quantizer.process_group == "world"
    quantizer.process_group = None
    assert copy.deepcopy(quantizer).process_group is None
    with pytest.raises(TypeError, match="process_group is 3, expected 'world', None"):
        method(BITS, 2**BITS, process_group=3)
