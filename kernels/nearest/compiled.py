"""The nearest code on a CPU, exactly, by the compiled search: equations (1) to (5) of kernels/nearest/README.md.

float32, float16 and bfloat16 run in float32 with a certificate, and in float64 where the certificate fails;
float64 input is searched in float64 throughout. The modes of `torch.get_float32_matmul_precision()` have no
effect: here exactness costs nothing that a lower precision could save.
"""

import torch
from torch import Tensor

from quantizers.kernels.common.compiled.call import Argument, call, suffix, threads
from quantizers.kernels.common.vectors import compute_dtype
from quantizers.kernels.nearest import pruning


def nearest_code(x: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """As in kernels/nearest/reference.py; the squared distance is summed in float64 and rounded once."""
    indices, _, distance = _search(x, codebook, False)
    return indices, distance


def nearest_lookup(x: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As in kernels/nearest/reference.py, in one pass."""
    return _search(x, codebook, True)


def lookup_vector_gradient(
    loss_gradient: Tensor, x: Tensor, codes: Tensor, indices: Tensor, weight: float
) -> Tensor:
    """As in kernels/nearest/reference.py, in one pass; see sums.cpp."""
    dtype = codes.dtype
    inputs = [tensor.detach().to(dtype).contiguous() for tensor in (loss_gradient, x, codes)]
    result = torch.empty_like(inputs[1])
    sizes: list[Argument] = [indices.numel(), x.shape[-1], float(weight), threads(x.numel())]
    call("quantizers_vector_gradient" + suffix(result), [*inputs, indices.contiguous(), *sizes, result])
    return result.to(x.dtype)


def lookup_codebook_gradient(
    codes_gradient: Tensor | None,
    loss_gradient: Tensor,
    x: Tensor,
    codes: Tensor,
    indices: Tensor,
    weight: float,
    codebook_size: int,
) -> Tensor:
    """As in kernels/nearest/reference.py, in one pass; see sums.cpp."""
    dtype, (heads, count, dim) = codes.dtype, x.shape
    inputs = [
        None if tensor is None else tensor.detach().to(dtype).contiguous()
        for tensor in (codes_gradient, loss_gradient, x, codes)
    ]
    indices, result = indices.contiguous(), codes.new_empty(heads, codebook_size, dim)
    for head in range(heads):
        vectors = [None if tensor is None else tensor[head] for tensor in inputs]
        sizes: list[Argument] = [count, codebook_size, dim, float(weight), threads(count * dim)]
        call("quantizers_codebook_gradient" + suffix(result), [*vectors, indices[head], *sizes, result[head]])
    return result


def _search(x: Tensor, codebook: Tensor, with_codes: bool) -> tuple[Tensor, Tensor, Tensor]:
    dtype = compute_dtype(x, codebook)
    x, codebook = x.detach().to(dtype).contiguous(), codebook.detach().to(dtype).contiguous()
    indices = torch.empty(x.shape[:2], dtype=torch.int64)
    distance = torch.empty(x.shape[:2], dtype=dtype)
    codes = torch.empty_like(x) if with_codes else x.new_empty(x.shape[0], 0)
    for head in range(x.shape[0]):
        outputs = [indices[head], distance[head], codes[head] if with_codes else None]
        _search_head(x[head], codebook[head], outputs)
    return indices, codes, distance


def _search_head(x: Tensor, codebook: Tensor, outputs: list[Tensor | None]) -> None:
    if x.dtype == torch.float64:
        number = threads(x.numel() * codebook.shape[0])
        call("quantizers_nearest_double", [x, x.shape[0], codebook, *codebook.shape, number, *outputs])
    else:
        pruning.search(x, codebook, outputs)
