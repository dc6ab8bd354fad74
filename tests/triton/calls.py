"""A call of each launcher of Triton kernels, with small random arguments."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from quantizers.kernels.averages.triton import average_codes_
from quantizers.kernels.common.triton.replay import Replayed
from quantizers.kernels.highest.triton import highest_score
from quantizers.kernels.k_nearest.triton import k_nearest_codes
from quantizers.kernels.levels import triton as levels
from quantizers.kernels.nearest.triton import lookup_gradient
from quantizers.kernels.nearest.triton.nearest import nearest_code, nearest_lookup
from quantizers.kernels.rotation.triton import rotate_grad
from quantizers.kernels.rows import triton as rows
from quantizers.kernels.soft.triton import backward as soft_backward
from quantizers.kernels.soft.triton import forward as soft
from quantizers.kernels.sums import triton as sums
from tests.triton.interpreter import device


def draw(*shape: int) -> Tensor:
    """Normal numbers."""
    return torch.randn(*shape).to(device())


def chosen(n: int, size: int) -> Tensor:
    """Indices [1, N], some of them −1."""
    return torch.randint(-1, size, (1, n)).to(device())


def _averages() -> tuple[Any, ...]:
    state = draw(9, 4), draw(9).abs(), draw(9, 4), draw(9, 4)
    return (draw(20, 4), chosen(20, 9)[0], *state, 0.9, 1e-5, False)


def _soft_backward() -> tuple[Any, ...]:
    inputs = (
        draw(20, 4),
        draw(9, 4),
        draw(9),
        draw(9, 4),
        torch.ones(()).to(device()),
        torch.tensor(3).to(device()),
    )
    value, _, divergence, log_sums = soft.soft_codes(*inputs)
    return (draw(20, 4), draw(20), *inputs, value, divergence, log_sums)


class Call(NamedTuple):
    """A launcher, and new arguments for it, always of the same kind."""

    function: Replayed[..., Any]
    arguments: Callable[[], tuple[Any, ...]]


_CALLS: dict[str, tuple[Replayed[..., Any], Callable[[], tuple[Any, ...]]]] = {
    "nearest_code": (nearest_code, lambda: (draw(2, 20, 4), draw(2, 9, 4))),
    "nearest_lookup": (nearest_lookup, lambda: (draw(1, 20, 4), draw(1, 9, 4))),
    "vector_gradient": (
        lookup_gradient.lookup_vector_gradient,
        lambda: (draw(1, 20), draw(1, 20, 4), draw(1, 20, 4), chosen(20, 9), 0.25),
    ),
    "codebook_gradient": (
        lookup_gradient.lookup_codebook_gradient,
        lambda: (draw(1, 20, 4), draw(1, 20), draw(1, 20, 4), draw(1, 20, 4), chosen(20, 9), 1.0, 9),
    ),
    "k_nearest_codes": (k_nearest_codes, lambda: (draw(1, 20, 4), draw(1, 9, 4), 3)),
    "highest_score": (highest_score, lambda: (draw(20, 4), draw(9, 4), draw(9))),
    "code_sums": (sums.code_sums, lambda: (draw(1, 20, 4), chosen(20, 9), 9)),
    "ema_code_sums": (
        sums.ema_code_sums,
        lambda: (draw(1, 20, 4), chosen(20, 9), draw(1, 9).abs(), draw(1, 9, 4), 0.9),
    ),
    "average_codes_": (average_codes_, _averages),
    "rotate_grad": (rotate_grad, lambda: (draw(20, 4), draw(20, 4), draw(20, 4))),
    "round_levels": (levels.round_levels, lambda: (draw(20, 2), torch.tensor([5, 4]).to(device()), 1.0)),
    "round_levels_backward": (
        levels.round_levels_backward,
        lambda: (draw(20, 2), draw(20, 2), torch.tensor([5, 4]).to(device()), 1.0),
    ),
    "finite_rows": (rows.finite_rows, lambda: (draw(20, 4) / draw(20, 4).round(), None)),
    "marked_rows": (rows.marked_rows, lambda: (draw(20, 4), chosen(20, 9)[0], draw(20) > 0)),
    "rows_gradient": (rows.rows_gradient, lambda: (draw(20, 4), draw(20) > 0, torch.float32)),
    "mean_loss": (rows.mean_loss, lambda: (draw(1, 20), draw(20) > 0, 4)),
    "mean_loss_gradient": (
        rows.mean_loss_gradient,
        lambda: (draw(1), draw(20) > 0, torch.tensor(20).to(device())),
    ),
    "soft_codes": (
        soft.soft_codes,
        lambda: (draw(20, 4), draw(9, 4), draw(9), draw(9, 4), torch.ones(()).to(device()), None),
    ),
    "soft_codes_backward": (soft_backward.soft_codes_backward, _soft_backward),
}
CALLS = {name: Call(*each) for name, each in _CALLS.items()}


def copied(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same arguments in memory of their own."""
    return tuple(each.clone() if isinstance(each, Tensor) else each for each in arguments)


def _flat(result: Any) -> list[Tensor]:
    results = [result] if isinstance(result, Tensor) else result or ()
    return [each for each in results if isinstance(each, Tensor)]


def assert_equal(actual: Any, expected: Any) -> None:
    """The tensors of two results, or of two calls' arguments, are equal in layout and values; NaN equals NaN."""
    for a, b in zip(_flat(actual), _flat(expected), strict=True):
        assert (a.dtype, a.shape, a.stride()) == (b.dtype, b.shape, b.stride())
        assert torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0))
