"""The backward of the rotation trick: equations (1) to (5) of kernels/rotation/README.md."""

from torch import Tensor

from quantizers.kernels.rotation.linear_map import rotate_transposed


def rotate_grad(gradient: Tensor, x: Tensor, quantized: Tensor) -> Tensor:
    """Return λ Rᵀ g, the backward of the rotation trick (Fifty et al. 2024, §4.2), by equations (1) to (5).

    Args: [..., D] each; `x` is the encoder's vector, `quantized` its code.

    Returns: [..., D] in the gradient's dtype, of norm λ‖g‖ with 1/100 ≤ λ ≤ 100 for all finite vectors; g itself
    if x or
        its code is zero.
    """
    return rotate_transposed(gradient, x, quantized)
