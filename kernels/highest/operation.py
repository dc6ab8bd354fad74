"""The code with the largest score: a registered operation."""

from collections.abc import Callable

import torch
from torch import Tensor

from quantizers.kernels.common.arguments import check_keys
from quantizers.kernels.common.batching import along, one_by_one
from quantizers.kernels.common.dispatch import Operation
from quantizers.kernels.common.modes import leaves_library, undifferentiated
from quantizers.kernels.common.registered import registered
from quantizers.kernels.highest import compiled, exported, reference


def _import_highest_score() -> Callable[..., Tensor]:
    from quantizers.kernels.highest.triton import highest_score

    return highest_score


HIGHEST_SCORE = Operation(
    name="highest_score",
    reference=reference.highest_score,
    compiled=compiled.highest_score,
    import_triton=_import_highest_score,
)


def highest_score(x: Tensor, keys: Tensor, bias: Tensor) -> Tensor:
    """Return argmax_k x·key_k + bias_k, the lowest of the scores that float64 cannot distinguish.

    Args:
        x: [N, D], finite.
        keys: [K, D].
        bias: [K].

    Returns: [N] int64.

    Raises: ValueError or TypeError if the tensors do not fit together.
    """
    check_keys(x, keys, bias)
    search = exported.highest_score if leaves_library() else _highest_score
    indices: Tensor = search(*undifferentiated(x, keys, bias))
    return indices


@registered("highest_score")
def _highest_score(x: Tensor, keys: Tensor, bias: Tensor) -> Tensor:
    return HIGHEST_SCORE.run(x, keys, bias)


@_highest_score.register_fake
def _(x: Tensor, keys: Tensor, bias: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], dtype=torch.int64)


_highest_score.register_without_gradient()
_highest_score.register_vmap(along(_highest_score, 0, 1, one_by_one(_highest_score)))
