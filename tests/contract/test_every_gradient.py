"""Every parameter that learns gets a gradient, if a zero one, in the backward of each forward in training.

DistributedDataParallel waits for all of them; with one left out its next step fails. What a forward leaves out (a
mask, stages, vectors that are not finite) must not leave out their parameters.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from quantizers import Quantizer
from quantizers.composite.composed import ComposedQuantizer
from quantizers.core.truncatable import TruncatableQuantizer
from tests.cases import CASES, DIM, METHODS, Case, batch

pytestmark = pytest.mark.usefixtures("implementation")

WITHOUT_LOSS = {"codebook_weight": 0.0, "commitment_weight": 0.0}
STAGES = [case.name for case in METHODS if case.has_codes and not isinstance(case.sample, ComposedQuantizer)]
MORE = [
    Case("multiscale"),
    *(Case("residual", {"quantizer": name, "num_quantizers": 3}) for name in STAGES),
    *(Case("grouped", {"quantizer": name}) for name in ("gumbel", "simvq", "lfq")),
    *(Case(name, WITHOUT_LOSS) for name in ("vq", "simvq", "multihead", "qinco", "optvq")),
    Case("qinco", {"codebook_weight": 0.0}),
    Case("ibq", {**WITHOUT_LOSS, "double_weight": 0.0}),
    Case("gumbel", {"kl_weight": 0.0, "hard": True, "logits": "distance", "learned_scale": True}),
    Case("bernoulli", {"kl_weight": 0.0, "codebook_size": 2**DIM}),
    Case("residual", {"dropout": 1.0, "num_quantizers": 4, "learn_scales": True, "code_dim": 3}),
    Case("residual", {"dropout": 1.0, "dropout_by": "batch", "quantizer": "gumbel"}),
]


def situations(quantizer: Quantizer) -> dict[str, tuple[Tensor, dict[str, Any]]]:
    """Batches that leave out something, as x and the other arguments of a forward."""
    x = batch(3, 4, 4)
    found: dict[str, tuple[Tensor, dict[str, Any]]] = {
        "whole": (x, {}),
        "masked": (x, {"mask": torch.zeros(3, 4, 4, dtype=torch.bool)}),
        "empty": (x[:0], {}),
        "not finite": (x * torch.nan, {}),
        "half precision": (x.bfloat16(), {}),
    }
    if isinstance(quantizer, TruncatableQuantizer):
        found["first codebooks"] = x, {"num_codebooks": quantizer.codebook_counts[0]}
    return found


@pytest.mark.parametrize("case", [*CASES, *MORE], ids=str)
def test_every_parameter_gets_a_gradient(case: Case) -> None:
    for situation, (x, options) in situations(case.build()).items():
        quantizer = case.build()
        out = quantizer(x.clone().requires_grad_(), **options)
        (out.quantized.float().nan_to_num().sum() + out.loss).backward()
        missing = [name for name, p in quantizer.named_parameters() if p.requires_grad and p.grad is None]
        assert not missing, f"{situation}: no gradient for {missing}"
        if situation not in ("whole", "half precision", "first codebooks"):
            learned = {name: p.grad for name, p in quantizer.named_parameters() if p.requires_grad}
            wrong = [name for name, grad in learned.items() if not grad.isfinite().all()]
            assert not wrong, f"{situation}: gradients of {wrong} are not finite"
