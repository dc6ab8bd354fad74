"""Softmax-weighted codes on a CPU: PyTorch's matrix products in blocks of rows, and everything else in
soft.cpp."""

from collections.abc import Iterator

import torch
from torch import Tensor

from quantizers.kernels.common.compiled.call import call, suffix, threads
from quantizers.kernels.common.constants import LARGEST_SCORE
from quantizers.kernels.common.vectors import compute_dtype
from quantizers.kernels.soft import reference

SCORE_BUDGET = 2**20  # elements in a block of logits, small enough for the cache
WORK = 64  # per logit, in multiply-adds


def soft_codes(
    x: Tensor, keys: Tensor, bias: Tensor, values: Tensor, temperature: Tensor, seed: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As in kernels/soft/reference.py, in float32 for inputs that are not float64."""
    if _may_overflow(x, keys, bias, temperature):
        return reference.soft_codes(x, keys, bias, values, temperature, seed)
    dtype = compute_dtype(x, keys, bias, values)
    x, keys, bias, values, temperature = (t.detach().to(dtype) for t in (x, keys, bias, values, temperature))
    value = x.new_empty(x.shape[0], values.shape[1])
    indices = torch.empty(x.shape[0], dtype=torch.int64)
    divergence, log_sums = x.new_empty(x.shape[0]), x.new_empty(x.shape[0], 2)
    for rows in _blocks(x, keys):
        block = torch.addmm(bias, x[rows], keys.T)
        work = [*block.shape, rows.start, temperature, seed, threads(WORK * block.numel())]
        outputs = [indices[rows], divergence[rows], log_sums[rows]]
        call("quantizers_soft_forward" + suffix(x), [block, *work, *outputs])
        torch.mm(block, values, out=value[rows])
    return value, indices, divergence, log_sums


def soft_codes_backward(
    value_gradient: Tensor,
    divergence_gradient: Tensor,
    x: Tensor,
    keys: Tensor,
    bias: Tensor,
    values: Tensor,
    temperature: Tensor,
    seed: Tensor | None,
    value: Tensor,
    divergence: Tensor,
    log_sums: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As in kernels/soft/reference.py, by equations (4) to (6)."""
    if _may_overflow(x, keys, bias, temperature):
        outer, inner = (value_gradient, divergence_gradient), (value, divergence, log_sums)
        return reference.soft_codes_backward(*outer, x, keys, bias, values, temperature, seed, *inner)
    dtype = log_sums.dtype
    inputs = (x, keys, bias, values)
    x, keys, bias, values, temperature = (t.detach().to(dtype) for t in (*inputs, temperature))
    value_gradient, divergence_gradient = value_gradient.to(dtype), divergence_gradient.to(dtype).contiguous()
    products = (value_gradient * value).sum(-1)
    saved = [divergence_gradient, divergence.contiguous(), log_sums.contiguous()]
    x_gradient = torch.empty_like(x)
    sums = [torch.zeros_like(tensor) for tensor in (keys, bias, values)]
    for rows in _blocks(x, keys):
        logits = torch.addmm(bias, x[rows], keys.T)
        scores = torch.mm(value_gradient[rows], values.T)
        work = [*logits.shape, rows.start, temperature, seed]
        row_inputs = [tensor[rows] for tensor in (products, *saved)]
        call(
            "quantizers_soft_backward" + suffix(x),
            [logits, scores, *work, *row_inputs, threads(WORK * logits.numel())],
        )
        torch.mm(logits, keys, out=x_gradient[rows])
        sums[0].addmm_(logits.T, x[rows])
        sums[1].add_(logits.sum(0))
        sums[2].addmm_(scores.T, value_gradient[rows])
    results = (gradient.to(tensor.dtype) for gradient, tensor in zip((x_gradient, *sums), inputs, strict=True))
    x_gradient, keys_gradient, bias_gradient, values_gradient = results
    return x_gradient, keys_gradient, bias_gradient, values_gradient


def _may_overflow(x: Tensor, keys: Tensor, bias: Tensor, temperature: Tensor) -> bool:
    """Whether a logit, or an intermediate sum, may overflow float32."""
    if not x.numel():
        return False
    largest, longest, offset = (float(tensor.detach().abs().amax()) for tensor in (x, keys, bias))
    return (x.shape[1] * largest * longest + offset) / min(float(temperature), 1.0) > LARGEST_SCORE


def _blocks(x: Tensor, keys: Tensor) -> Iterator[slice]:
    step = max(1, SCORE_BUDGET // keys.shape[0])
    for start in range(0, x.shape[0], step):
        yield slice(start, min(start + step, x.shape[0]))
