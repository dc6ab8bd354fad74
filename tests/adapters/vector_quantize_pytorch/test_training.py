"""Training features of vector-quantize-pytorch's classes that are lost when their codes are kept."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from quantizers import plug_in
from tests.adapters.vector_quantize_pytorch.package import WIDTH, made, normal


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, 0.1)


LEARNED = {"learnable_codebook": True, "ema_update": False}
DIRECTIONAL = {"directional_reparam": True, "threshold_ema_dead_code": 2}
SAMPLED = {"stochastic_sample_codes": True, "threshold_ema_dead_code": 2}


@pytest.mark.parametrize("name", ["VectorQuantize", "ResidualVQ"])
@pytest.mark.parametrize(
    ("options", "named"),
    [
        (SAMPLED, "stochastic_sample_codes=True, threshold_ema_dead_code=2"),
        ({"straight_through": True, "rotation_trick": False}, "straight_through=True"),
        ({"commitment_use_cross_entropy_loss": True}, "commitment_use_cross_entropy_loss=True"),
        ({"orthogonal_reg_weight": 1.0, "ema_update": False}, "orthogonal_reg_weight=1.0"),
        ({"codebook_diversity_loss_weight": 0.5}, "codebook_diversity_loss_weight=0.5"),
        (DIRECTIONAL, "threshold_ema_dead_code=2, directional_reparam=True"),
        ({"sync_update_v": 0.1, **LEARNED}, "sync_update_v=0.1"),
        ({"in_place_codebook_optimizer": sgd, **LEARNED}, "in_place_codebook_optimizer=SGD"),
    ],
)
def test_training_that_does_not_go_on_is_named(name: str, options: dict[str, Any], named: str) -> None:
    """The codes are kept nevertheless."""
    original = made(name, **options).eval()
    with pytest.warns(UserWarning, match=f"{named}.*training goes on without that"):
        model = plug_in(nn.Sequential(copy.deepcopy(original)), "vq", keep_codebook=True).eval()
    x = normal(2, 60, WIDTH)
    assert (model(x)[1] == original(x)[1]).float().mean() > 0.95
