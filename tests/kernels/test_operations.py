"""Registered operations: schema, fake and autograd by PyTorch's own checker; arguments that do not fit."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from quantizers.kernels.common import dispatch
from quantizers.kernels.highest.operation import highest_score
from quantizers.kernels.k_nearest.operation import k_nearest_codes
from quantizers.kernels.levels.operation import round_levels
from quantizers.kernels.nearest.operation import nearest_code, nearest_lookup
from quantizers.kernels.rotation.operation import rotate_grad
from quantizers.kernels.soft.operation import soft_codes
from quantizers.kernels.sums.operation import code_sums, ema_code_sums
from quantizers.kernels.transport.operation import sinkhorn_potentials

OPERATIONS = torch.ops.quantizers


def normal(*shape: int, dtype: torch.dtype = torch.float32, learned: bool = False) -> Tensor:
    return torch.randn(*shape, dtype=dtype, requires_grad=learned)


INDICES = torch.tensor([[0, 2, -1, 1, 0], [1, 1, 1, 1, -1]])
WEIGHT = torch.tensor(0.25, dtype=torch.float64)
SAMPLES: dict[str, list[Callable[[], tuple[Any, ...]]]] = {
    "nearest_code": [
        lambda: (normal(2, 5, 3), normal(2, 4, 3)),
        lambda: (normal(1, 0, 3), normal(1, 1, 3, dtype=torch.bfloat16)),
        lambda: (normal(1, 5, 3, learned=True), normal(1, 4, 3, learned=True)),
    ],
    "nearest_lookup": [
        lambda: (normal(2, 5, 3, learned=True), normal(2, 4, 3, learned=True), WEIGHT, WEIGHT),
        lambda: (normal(1, 5, 3, dtype=torch.float16), normal(1, 4, 3, dtype=torch.float16), WEIGHT, 0 * WEIGHT),
        lambda: (normal(1, 5, 3).double(), normal(1, 4, 3, dtype=torch.float64, learned=True), WEIGHT, 8 * WEIGHT),
    ],
    "k_nearest_codes": [
        lambda: (normal(2, 5, 3), normal(2, 4, 3), 2),
        lambda: (normal(1, 0, 3), normal(1, 2, 3, dtype=torch.bfloat16), 1),
        lambda: (normal(1, 5, 3, learned=True), normal(1, 4, 3, dtype=torch.float64, learned=True), 4),
    ],
    "lookup_vector_gradient": [
        lambda: (torch.rand(2, 5), normal(2, 5, 3), normal(2, 5, 3), INDICES, 0.25),
        lambda: (torch.rand(2, 5), normal(2, 5, 3, dtype=torch.float16), normal(2, 5, 3), INDICES, 0.25),
    ],
    "lookup_codebook_gradient": [
        lambda: (normal(2, 5, 3), torch.rand(2, 5), normal(2, 5, 3), normal(2, 5, 3), INDICES, 0.25, 4),
        lambda: (None, torch.rand(2, 5), normal(2, 5, 3), normal(2, 5, 3), INDICES, 0.25, 4),
    ],
    "highest_score": [lambda: (normal(5, 3), normal(4, 3), normal(4))],
    "code_sums": [
        lambda: (normal(2, 5, 3, learned=True), INDICES, 4),
        lambda: (normal(2, 5, 3, dtype=torch.bfloat16), INDICES, 4),
    ],
    "ema_code_sums": [lambda: (normal(2, 5, 3), INDICES, torch.rand(2, 4), normal(2, 4, 3), WEIGHT)],
    "rotate_grad": [
        lambda: (normal(2, 5, 3), normal(2, 5, 3), normal(2, 5, 3)),
        lambda: (normal(5, 3, dtype=torch.bfloat16), normal(5, 3), normal(5, 3)),
    ],
    "round_levels": [lambda: (normal(2, 5, 3, learned=True), [8, 5, 2], 0.8)],
    "round_levels_backward": [lambda: (normal(5, 3), normal(5, 3), [8, 5, 2], 1.0)],
    "soft_codes": [
        lambda: (*soft_inputs(learned=True), torch.tensor(0.7), torch.tensor(3)),
        lambda: (*soft_inputs(dtype=torch.float64), torch.tensor(0.7), None),
    ],
    "soft_codes_backward": [
        lambda: (
            normal(5, 2), normal(5), *soft_inputs(), torch.tensor(0.7), torch.tensor(3),
            normal(5, 2), torch.rand(5), normal(5, 2),
        ),
    ],
    "sinkhorn_potentials": [
        lambda: (normal(5, 3), normal(4, 3, learned=True), normal(4), torch.arange(5) < 4, 3),
        lambda: (normal(0, 3), normal(4, 3), normal(4, dtype=torch.float64), torch.zeros(0, dtype=bool), 1),
    ],
}  # fmt: skip


def soft_inputs(**options: Any) -> tuple[Tensor, ...]:
    return tuple(normal(*shape, **options) for shape in [(5, 3), (4, 3), (4,), (4, 2)])


def test_every_operation_has_samples() -> None:
    assert set(SAMPLES) == set(dispatch.OPERATIONS)


@pytest.mark.parametrize(
    ("name", "sample"), [(name, sample) for name, samples in SAMPLES.items() for sample in samples]
)
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not")  # opcheck in torch 2.15
def test_opcheck(name: str, sample: Callable[[], tuple[Any, ...]]) -> None:
    """Nothing undeclared is mutated or aliased, fakes have the real shapes and dtypes, gradients trace."""
    torch.library.opcheck(getattr(OPERATIONS, name).default, sample())


ERRORS: list[tuple[str, Callable[[], object], type[Exception]]] = [
    ("got 3 channels in x but 4 in codebook", lambda: nearest_code(normal(1, 5, 3), normal(1, 2, 4)), ValueError),
    ("got 2 heads in x but 1 in codebook", lambda: nearest_lookup(normal(2, 5, 3), normal(1, 2, 3)), ValueError),
    (
        r"x has shape \(5, 3\), expected \[H, N, D\]",
        lambda: nearest_code(normal(5, 3), normal(1, 2, 3)),
        ValueError,
    ),
    ("at least one code", lambda: nearest_code(normal(1, 5, 3), normal(1, 0, 3)), ValueError),
    ("at least one code", lambda: nearest_code(normal(1, 5, 0), normal(1, 2, 0)), ValueError),
    ("x has dtype torch.int64", lambda: nearest_code(torch.zeros(1, 5, 3, dtype=int), normal(1, 2, 3)), TypeError),
    (
        "codebook is on meta and x on cpu",
        lambda: nearest_code(normal(1, 5, 3), torch.empty(1, 2, 3, device="meta")),
        ValueError,
    ),
    (
        "got 2 heads in x but 1 in codebook",
        lambda: k_nearest_codes(normal(2, 5, 3), normal(1, 2, 3), 1),
        ValueError,
    ),
    (
        "k is 3, expected 1 to 2, the number of codes",
        lambda: k_nearest_codes(normal(1, 5, 3), normal(1, 2, 3), 3),
        ValueError,
    ),
    ("k is 0, expected 1 to 2", lambda: k_nearest_codes(normal(1, 5, 3), normal(1, 2, 3), 0), ValueError),
    (
        "k is 1.0, expected an integer",
        lambda: k_nearest_codes(normal(1, 5, 3), normal(1, 2, 3), 1.0),  # type: ignore[arg-type]
        TypeError,
    ),
    (
        "got 4 codes in keys but 5 in bias",
        lambda: highest_score(normal(5, 3), normal(4, 3), normal(5)),
        ValueError,
    ),
    ("indices have dtype torch.int32", lambda: code_sums(normal(2, 5, 3), INDICES.int(), 4), TypeError),
    ("indices have shape", lambda: code_sums(normal(2, 6, 3), INDICES, 4), ValueError),
    (
        "cluster_size has shape",
        lambda: ema_code_sums(normal(2, 5, 3), INDICES, torch.rand(2, 5), normal(2, 4, 3), 0.9),
        ValueError,
    ),
    ("expected one shape", lambda: rotate_grad(normal(5, 3), normal(5, 3), normal(5, 4)), ValueError),
    ("expected torch.float32", lambda: round_levels(normal(5, 1).half(), [3]), TypeError),
    ("expected 2 channels", lambda: round_levels(normal(5, 3), [3, 5]), ValueError),
    (
        "got 4 codes in keys but 5 in values",
        lambda: soft_codes(normal(5, 3), normal(4, 3), normal(4), normal(5, 2), torch.ones(())),
        ValueError,
    ),
    (
        "counts is torch.float32",
        lambda: sinkhorn_potentials(normal(5, 3), normal(4, 3), normal(4), torch.ones(5), 1),
        TypeError,
    ),
    ("seed is torch.float32", lambda: soft_codes(*soft_inputs(), torch.ones(()), torch.ones(())), TypeError),
]


@pytest.mark.parametrize(("message", "function", "error"), ERRORS, ids=[message for message, _, _ in ERRORS])
def test_arguments_that_do_not_fit(message: str, function: Callable[[], object], error: type[Exception]) -> None:
    with pytest.raises(error, match=message):
        function()


def test_a_compiled_graph_holds_the_operations() -> None:
    """One graph without a break, forward and backward, with the result of eager mode."""

    def step(x: Tensor, codebook: Tensor) -> Tensor:
        codes, _, loss = nearest_lookup(x, codebook, 0.25, 1.0)
        return (codes * x).sum() + loss.mean()

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    results = []
    for function in (step, compiled):
        torch.manual_seed(0)
        x, codebook = normal(1, 20, 3, learned=True), normal(1, 7, 3, learned=True)
        value = function(x, codebook)
        results.append((value, *torch.autograd.grad(value, [x, codebook])))
    for eager, traced in zip(*results, strict=True):
        assert torch.equal(eager, traced)
