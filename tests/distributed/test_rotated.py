"""The rotation of a rotated quantizer over ranks: the same on all of them, from the vectors of all."""

import pytest
import torch
from torch import Tensor

import quantizers
from quantizers import Quantizer
from quantizers.composite import fitted_rotation
from tests.cases import normal
from tests.distributed.ranks import Ranks, World


def fitted(shard: Tensor) -> Quantizer:
    torch.manual_seed(3)
    quantizer = quantizers.create("opq", 4, codebook_size=4, num_groups=2).double()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitted_rotation, "ROUNDS", 3)
        quantizer.initialize_from(shard)
    return quantizer


def state_of_rank(world: World, shards: list[Tensor]) -> dict[str, Tensor]:
    torch.manual_seed(world.rank)
    with world.joined():
        return dict(fitted(shards[world.rank]).state_dict())


def error_of_rank(world: World, shards: list[Tensor]) -> str:
    with world.joined(), pytest.raises(ValueError, match="no vector counts") as raised:
        quantizers.create("opq", 4, codebook_size=8).initialize_from(shards[world.rank])
    return str(raised.value)


def test_rank_by_rank_the_same_rotation_and_codes(ranks: Ranks) -> None:
    """Also where a rank has no vector. Seeds are drawn from the vectors of all ranks, so that one process on all
    vectors finds the same up to the order of its sums."""
    x = normal(0, 200, 2) @ normal(1, 2, 4) + 0.1 * normal(2, 200, 4)
    found = ranks.run(3, state_of_rank, list(x.split([120, 0, 80])))
    for state in found:
        assert state.keys() == found[0].keys()
        assert all(torch.equal(value, found[0][name]) for name, value in state.items())
    quantizer = quantizers.create("opq", 4, codebook_size=4, num_groups=2).double()
    quantizer.load_state_dict(found[0])
    alone = fitted(x)
    errors = [float((each.eval()(x).quantized - x).square().mean()) for each in (quantizer, alone)]
    plain = quantizers.create("grouped", 4, 4, num_groups=2).double()
    plain.initialize_from(x)
    assert max(errors) < 0.8 * float((plain.eval()(x).quantized - x).square().mean())


def test_every_rank_says_that_no_vector_counts(ranks: Ranks) -> None:
    assert len(set(ranks.run(2, error_of_rank, [torch.full((3, 4), torch.nan), torch.zeros(0, 4)]))) == 1
