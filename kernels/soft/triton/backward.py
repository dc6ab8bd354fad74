"""The gradients of `soft_codes`. The probabilities are recomputed from the logits' saved log-sums.

With y and p the two softmaxes of a row, g and c the gradients of its value and its divergence KL, the gradient of
logit k is

    dl_k = y_k (g·value_k − g·value) / τ + c p_k (ln p_k − KL + ln K)

and the gradients of x, keys, bias and values are sums of dl_k and y_k over codes, or over rows. One kernel passes
over the codes for a block of rows, another over the rows for a block of codes. Each sum belongs to one program and
has a fixed order.
"""

import torch
from torch import Tensor

from quantizers.kernels.common.triton.replay import replayed
from quantizers.kernels.soft.triton.code_gradients import code_gradients
from quantizers.kernels.soft.triton.forward import check_dtypes
from quantizers.kernels.soft.triton.pieces import pack
from quantizers.kernels.soft.triton.problem import TERMS, Problem, Saved, Sizes
from quantizers.kernels.soft.triton.row_gradients import row_gradients


@replayed()
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
    """Return the gradients of x, keys, bias and values for those of value [N, V] and divergence [N], in their
    dtypes.

    The last three arguments are outputs of `soft_codes`. Shapes and dtypes are as for `soft_codes`. The result is
    bit-equal from run to run on one kind of device, whose size determines the split of the rows.

    Raises: TypeError for float64.
    """
    check_dtypes(x=x, keys=keys, bias=bias, values=values)
    n, d = x.shape
    if n == 0:
        return torch.empty_like(x), torch.zeros_like(keys), torch.zeros_like(bias), torch.zeros_like(values)
    results = (value_gradient, divergence_gradient, value, divergence, log_sums)
    saved = Saved(*(tensor.contiguous() for tensor in results))
    packed, packed_bias = pack([x, saved.value_gradient], [keys, values], bias)
    packed_x, packed_gradient, packed_keys, packed_values = packed
    sizes = Sizes(n, keys.shape[0], d, values.shape[1], packed_x.shape[1], packed_keys.shape[1])
    problem = Problem(
        packed_x,
        packed_keys,
        packed_bias,
        packed_values,
        packed_gradient,
        temperature,
        temperature if seed is None else seed,
        torch.empty(TERMS, sizes.padded, dtype=torch.float32, device=x.device),
    )
    noisy = seed is not None
    x_gradient = torch.empty(n, d, dtype=x.dtype, device=x.device)
    row_gradients(problem, saved, sizes, noisy, x_gradient)
    sums = code_gradients(problem, sizes, noisy)
    keys_gradient, bias_gradient, values_gradient = (
        total.to(tensor.dtype) for total, tensor in zip(sums, (keys, bias, values), strict=True)
    )
    return x_gradient, keys_gradient, bias_gradient, values_gradient
