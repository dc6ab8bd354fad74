"""The precision that PyTorch's settings ask for, and the model of the errors of matrix units."""

import torch

# The model of a sum inside a matrix unit, in u per column: every step of s ≥ 8 products truncates s + 1 terms to
# 23 bits of the largest, which costs at most 9/8 · 2u. The largest error measured on an H200 is a tenth of that.
ACCUMULATION = 2.25
REST = 1.01  # second order, underflow, and the rounding of the bound itself


def is_exact() -> bool:
    """Return whether the current settings ask for float32 products of full precision on CUDA.

    `torch.backends.cuda.matmul.fp32_precision` ("ieee" or "tf32", from torch 2.9 on) decides first, and then
    `torch.get_float32_matmul_precision()`. That getter raises an error if settings of single backends contradict
    each other; then only the one for CUDA counts, which is at its default.
    """
    setting = getattr(torch.backends.cuda.matmul, "fp32_precision", "none")
    if setting in ("ieee", "tf32"):
        return bool(setting == "ieee")
    try:
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:
        return True
