"""The nearest of codes that a network computes for each vector: a registered operation.

It consists of matrix products, which libraries provide on every device, so there is one implementation and nothing
to dispatch.
"""

import torch
from torch import Tensor

from quantizers.kernels.common.arguments import (
    check_axes,
    check_device,
    check_equal,
    check_floating,
    check_not_empty,
)
from quantizers.kernels.common.batching import along, one_by_one
from quantizers.kernels.common.modes import leaves_library, undifferentiated
from quantizers.kernels.common.registered import registered
from quantizers.kernels.implicit import exported, reference


def nearest_implicit_code(
    targets: Tensor, context: Tensor, codes: Tensor, weight: Tensor, bias: Tensor, blocks: list[Tensor]
) -> Tensor:
    """argmin_k ‖t − f(c_k, x̂)‖; f(c, x̂) = h_L, h_0 = c + W [c; x̂] + b and h_l = h_{l−1} + V_l relu(U_l h_{l−1}).

    Work is O(N·K·D·(D + L·hidden)), memory O(N·D + K·hidden) plus a few MiB, without an N × K tensor.

    Args:
        targets: t [N, D], finite. context: x̂ [N, D]. codes: c [K, D].
        weight: W [D, 2D]. bias: b [D]. blocks: U_1 [hidden, D], V_1 [D, hidden], U_2, V_2, ...; may be empty.
        All of one dtype, float32 or float64.

    Returns: [N] int64, the lowest index of equal distances; without a gradient.

    Raises: ValueError or TypeError if the tensors do not fit together.
    """
    check_axes("targets", targets, "[N, D]")
    check_axes("codes", codes, "[K, D]")
    check_not_empty("codes", codes)
    check_floating(targets=targets, context=context, codes=codes, weight=weight, bias=bias)
    check_device(targets=targets, context=context, codes=codes, weight=weight, bias=bias)
    check_equal("channels", "targets", targets.shape[1], "codes", codes.shape[1])
    if context.shape != targets.shape:
        raise ValueError(
            f"context has shape {tuple(context.shape)}, expected {tuple(targets.shape)}, the shape of targets"
        )
    if len(blocks) % 2:
        raise ValueError(f"blocks contains {len(blocks)} weights, expected two per block")
    search = exported.nearest_implicit_code if leaves_library() else _nearest_implicit_code
    targets, context, codes, weight, bias, *blocks = undifferentiated(
        targets, context, codes, weight, bias, *blocks
    )
    indices: Tensor = search(targets, context, codes, weight, bias, blocks)
    return indices


@registered("nearest_implicit_code")
def _nearest_implicit_code(
    targets: Tensor, context: Tensor, codes: Tensor, weight: Tensor, bias: Tensor, blocks: list[Tensor]
) -> Tensor:
    return reference.nearest_implicit_code(targets, context, codes, weight, bias, blocks)


@_nearest_implicit_code.register_fake
def _(
    targets: Tensor, context: Tensor, codes: Tensor, weight: Tensor, bias: Tensor, blocks: list[Tensor]
) -> Tensor:
    return targets.new_empty(targets.shape[0], dtype=torch.int64)


_nearest_implicit_code.register_without_gradient()
_nearest_implicit_code.register_vmap(along(_nearest_implicit_code, 0, 2, one_by_one(_nearest_implicit_code)))
