"""The precision of the search's products: its mode, from PyTorch's settings, and the model of its errors."""

from typing import Literal

import torch

Mode = Literal["exact", "tf32", "bf16"]
MODES: dict[str, Mode] = {"highest": "exact", "high": "tf32", "medium": "bf16"}
# The model of a sum inside a matrix unit, in u per channel: every step of s ≥ 8 products truncates s + 1 terms to
# 23 bits of the largest, which costs at most 9/8 · 2u.
ACCUMULATION = 2.25
REST = 1.01  # second order, underflow and the smallest factor, some D · 2⁻¹⁰⁰


def matmul_mode() -> Mode:
    """Return the mode for the current settings of float32 matrix products on CUDA.

    `torch.backends.cuda.matmul.fp32_precision` ("ieee" or "tf32", from torch 2.9 on) decides first. It cannot tell
    "high" from "medium" of `torch.set_float32_matmul_precision`, which the older getter can, unless settings of
    single backends contradict each other: the getter then raises an error, and the setting for CUDA counts.
    """
    setting = getattr(torch.backends.cuda.matmul, "fp32_precision", "none")
    if setting == "ieee":
        return "exact"
    try:
        mode = MODES[torch.get_float32_matmul_precision()]
    except RuntimeError:
        mode = "exact"
    return "tf32" if setting == "tf32" and mode == "exact" else mode
