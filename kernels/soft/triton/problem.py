"""What the two kernels of the backward share: their arguments, and the gradient of a logit."""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from quantizers.kernels.soft.triton.forward import NEVER

TERMS = 5  # of a row: see `Problem.terms`


class Problem(NamedTuple):
    """What both kernels read."""

    x: Tensor  # [3, R, D] pieces
    keys: Tensor  # [3, S, D] pieces
    bias: Tensor  # [S] times log2 e
    values: Tensor  # [3, S, V] pieces
    value_gradient: Tensor  # [3, R, V] pieces
    temperature: Tensor
    seed: Tensor  # int64; not read without noise
    terms: Tensor  # [TERMS, R] float32 of rows: see row_gradients.py


class Saved(NamedTuple):
    """Results of the forward and their gradients, contiguous."""

    value_gradient: Tensor  # [N, V]
    divergence_gradient: Tensor  # [N]
    value: Tensor  # [N, V]
    divergence: Tensor  # [N]
    log_sums: Tensor  # [N, 2]


class Sizes(NamedTuple):
    """Sizes of the problem."""

    n: int
    codebook_size: int
    d: int
    width: int
    padded: int  # R
    padded_size: int  # S


@triton.jit
def slope_of(logits, y, gain, log_sum, weight, rest):
    """dl of a tile, zero outside of it.

    Args:
        logits: in units of ln 2.
        gain: (g·value_k − g·value) / τ.
        log_sum, weight, rest: terms of the rows, from the kernel over rows.
    """
    log_p = tl.maximum(logits - log_sum, NEVER, propagate_nan=tl.PropagateNan.ALL)  # not −∞ times zero
    return tl.exp2(log_p) * (log_p * weight + rest) + y * gain
