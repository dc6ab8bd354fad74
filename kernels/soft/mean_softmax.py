"""The logarithm of a softmax's mean over rows: a registered operation, in plain PyTorch on any device."""

import torch
from torch import Tensor

from quantizers.kernels.common.arguments import check_axes, check_device, check_equal, check_keys
from quantizers.kernels.common.batching import one_by_one
from quantizers.kernels.common.dispatch import without_autocast
from quantizers.kernels.common.modes import leaves_library, undifferentiated
from quantizers.kernels.common.registered import registered
from quantizers.kernels.common.vectors import compute_dtype
from quantizers.kernels.common.wide import narrowed, wide, wide_device
from quantizers.kernels.soft import exported

SCORE_BUDGET = 2**20  # elements in the largest block of logits


def log_mean_softmax(x: Tensor, keys: Tensor, bias: Tensor, valid: Tensor) -> Tensor:
    """Return log mean_n softmax_k(x_n·key_k + bias_k) over the valid rows, without an N × K matrix.

    There is no gradient. The computation uses logarithms throughout: the logarithm of a mean of e^−1000 is −1000,
    not −∞.

    Args:
        x: [N, D] vectors.
        keys: [K, D].
        bias: [K].
        valid: [N] bool.

    Returns: [K], float32 (float64 if an input is float64); −∞ if no row is valid.

    Raises: ValueError or TypeError if the tensors do not fit together.
    """
    check_keys(x, keys, bias)
    check_axes("valid", valid, "[N]")
    check_equal("rows", "x", x.shape[0], "valid", valid.shape[0])
    check_device(x=x, valid=valid)
    if valid.dtype != torch.bool:
        raise TypeError(f"valid has dtype {valid.dtype}, expected torch.bool")
    logarithm = exported.log_mean_softmax if leaves_library() else _log_mean_softmax
    mean: Tensor = logarithm(*undifferentiated(x, keys, bias, valid))
    return mean


@registered("log_mean_softmax")
def _log_mean_softmax(x: Tensor, keys: Tensor, bias: Tensor, valid: Tensor) -> Tensor:
    dtype = compute_dtype(x, keys, bias)
    x, keys, bias = (tensor.detach().to(dtype) for tensor in (x, keys, bias))
    total = torch.full(bias.shape, -torch.inf, dtype=torch.float64, device=wide_device(x.device))
    step = max(1, SCORE_BUDGET // max(keys.shape))
    with without_autocast(x.device):
        for start in range(0, x.shape[0], step):
            rows = slice(start, start + step)
            log_p = torch.addmm(bias, x[rows], keys.T).log_softmax(-1)
            log_p.masked_fill_(~valid[rows, None], -torch.inf)
            total = torch.logaddexp(total, wide(log_p.logsumexp(0)))
    return narrowed(total - wide(valid.sum()).clamp(min=1).log(), dtype, x.device)


@_log_mean_softmax.register_fake
def _(x: Tensor, keys: Tensor, bias: Tensor, valid: Tensor) -> Tensor:
    return x.new_empty(bias.shape, dtype=compute_dtype(x, keys, bias))


_log_mean_softmax.register_without_gradient()
_log_mean_softmax.register_vmap(one_by_one(_log_mean_softmax))
