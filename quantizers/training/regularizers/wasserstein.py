"""A loss that gives the codes the same mean and covariance as the vectors."""

import math

import torch
from torch import Tensor
from typing_extensions import Never

from quantizers.core.arguments.checks import Weight
from quantizers.core.arguments.configurable import configurable
from quantizers.core.arguments.options import checked
from quantizers.core.gradients import exact_value
from quantizers.core.regularizer import Moves, Regularizer
from quantizers.kernels.common.modes import derivatives, is_differentiated_again, is_transformed, leaves_library
from quantizers.kernels.common.vectors import compute_dtype
from quantizers.kernels.common.wide import narrowed, wide, wide_device

TWICE = (
    "the regularizer Wasserstein has no second derivative here: it would divide by square roots of covariances, "
    "which may not have full rank; leave it out of the loss that is differentiated twice"
)
RIDGE = 1e-12  # added to covariances with a total variance of one, so that all have a Cholesky factor
RESOLUTION = 1e-12  # of a squared distance at that scale; rounding may give this instead of zero


def wasserstein_loss(z: Tensor, codes: Tensor, valid: Tensor) -> Tensor:
    """Compute √(‖μ_z − μ_e‖² + tr(Σ_z + Σ_e − 2 (Σ_e^½ Σ_z Σ_e^½)^½)), the distance of two normal distributions.

        >>> import torch
        >>> from quantizers.training.regularizers import wasserstein_loss
        >>> codes = torch.eye(4)
        >>> wasserstein_loss(codes + 1, codes, valid=torch.ones(4, dtype=torch.bool))  # the means differ by 2
        tensor(2.)

    Source: Fang et al.: Enhancing Vector Quantization with Distributional Matching, 2025 (arXiv 2506.15078), its
    loss L_W. It is the 2-Wasserstein distance, not its square, between the normal distributions with the means
    and covariances of the vectors and of the codes. Covariances are divided by N and by K. A set in which every
    vector occurs twice therefore has the same covariance, and the covariance of a single vector is zero.

    With Σ = L Lᵀ, the trace of the root is the sum of the singular values of M = L_zᵀ L_e, which is ⟨P, M⟩ with
    M's polar factor P. Its gradient in Σ_z is ½ L_z⁻ᵀ P L_eᵀ, half the map that carries one distribution to the
    other, and its gradient in Σ_e is analogous. They are written out here because the gradient of a Cholesky
    decomposition divides by L twice, and loses all digits where Σ does not have full rank. All of this is computed
    in float64 on D × D matrices, and the host does not wait for the device.

    The distance is 1-Lipschitz: N Σ_n ‖∂/∂z_n‖² ≤ 1, so gradients are finite for any data. Below 10⁻⁶ of
    √tr(Σ_z + Σ_e), which rounding cannot distinguish from zero, the distance is zero, without a gradient.

    Args:
        z: [N, D].
        codes: [K, D].
        valid: [N] bool, the rows of z that count.

    Returns: 0-d, float32 (float64 if an input is float64), in units of z; zero without a valid row.
    """
    dtype, device = compute_dtype(z, codes), z.device
    z, codes, valid = wide(z), wide(codes), valid.to(wide_device(device))
    mean_z, covariance_z = _moments(z, valid)
    mean_e, covariance_e = _moments(codes, torch.ones_like(codes[:, 0], dtype=torch.bool))
    variance = (covariance_z.diagonal().sum() + covariance_e.diagonal().sum()).detach()
    scale = variance.where(variance > 0, 1.0)
    ridge = RIDGE * torch.eye(z.shape[1], dtype=scale.dtype, device=scale.device)
    covariance_z, covariance_e = covariance_z / scale + ridge, covariance_e / scale + ridge
    spread = (covariance_z + covariance_e).diagonal().sum() - 2 * _trace_of_root(covariance_z, covariance_e)
    square = (mean_z - mean_e).div(scale.sqrt()).square().sum() + spread
    apart = (square > RESOLUTION) & valid.any()
    distance = scale.sqrt() * square.where(apart, 1.0).sqrt()
    return narrowed(distance.where(apart, 0.0), dtype, device)


def _moments(vectors: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [D] and covariance [D, D] of the valid rows in float64, in which no square of a float32 overflows."""
    count = valid.sum(dtype=torch.float64).clamp(min=1)
    vectors = vectors.where(valid[:, None], 0.0)
    mean = (vectors / count).sum(0)
    centred = (vectors - mean).where(valid[:, None], 0.0) / count.sqrt()
    return mean, centred.T @ centred


def _trace_of_root(a: Tensor, b: Tensor) -> Tensor:
    """tr (b^½ a b^½)^½ of symmetric, positive definite matrices, whose traces sum to at most 1 + 2 D · RIDGE."""
    with torch.no_grad():
        left, right = (torch.linalg.cholesky_ex(matrix).L for matrix in (a, b))
        product = left.T @ right
        polar = _polar(product)
        value = (polar * product).sum()
        to_a = torch.linalg.solve_triangular(left.T, polar @ right.T, upper=True) / 2
        to_b = torch.linalg.solve_triangular(right.T, polar.T @ left.T, upper=True) / 2
    if derivatives() > 1:
        raise NotImplementedError(TWICE)
    if is_transformed() or leaves_library():
        return exact_value((to_a * a).sum() + (to_b * b).sum(), value)
    root: Tensor = _TraceOfRoot.apply(value, to_a, to_b, a, b)  # type: ignore[no-untyped-call]
    return root


class _TraceOfRoot(torch.autograd.Function):
    """`value`, with the gradients `to_a` and `to_b`, which cannot be differentiated again."""

    @staticmethod
    def forward(value: Tensor, to_a: Tensor, to_b: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def setup_context(
        ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, ...], output: Tensor
    ) -> None:
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        to_a, to_b, a, b = ctx.saved_tensors  # type: ignore[attr-defined]
        if is_differentiated_again():
            to_a, to_b = _Once.apply(to_a, a, b), _Once.apply(to_b, a, b)  # type: ignore[no-untyped-call]
        return None, None, None, gradient * to_a, gradient * to_b


class _Once(torch.autograd.Function):
    """A derivative with respect to a and b, which cannot be differentiated again."""

    @staticmethod
    def forward(ctx: object, derivative: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return derivative.view_as(derivative)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Never:
        raise NotImplementedError(TWICE)


def _halley_weights(smallest: float) -> list[tuple[float, float, float]]:
    """The weights a, b, c of the iterations after which all singular values from `smallest` to 1 are 1."""
    weights = []
    while 1 - smallest > 1e-15:
        square = smallest**2
        d = (4 * (1 - square) / square**2) ** (1 / 3)
        a = math.sqrt(1 + d) + math.sqrt(8 - 4 * d + 8 * (2 - square) / (square * math.sqrt(1 + d))) / 2
        b = (a - 1) ** 2 / 4
        c = a + b - 1
        weights.append((a, b, c))
        smallest = min(1.0, smallest * (a + b * square) / (1 + c * square))
    return weights


HALLEY_WEIGHTS = _halley_weights(RIDGE)


def _polar(matrix: Tensor) -> Tensor:
    """U Vᵀ of a matrix [D, D] = U S Vᵀ with singular values between RIDGE and 1.

    Computed by Halley's iteration with dynamic weights: Nakatsukasa, Bai, Gygi: Optimizing Halley's Iteration for
    Computing the Matrix Polar Decomposition, 2010; five QR decompositions for any matrix. A singular value
    decomposition would make the host wait for the device.
    """
    one = torch.eye(matrix.shape[0], dtype=matrix.dtype, device=matrix.device)
    for a, b, c in HALLEY_WEIGHTS:
        upper, lower = torch.linalg.qr(torch.cat([math.sqrt(c) * matrix, one])).Q.chunk(2)
        matrix = b / c * matrix + (a - b / c) / math.sqrt(c) * (upper @ lower.T)
    return matrix


@configurable("weight", "moves")
class Wasserstein(Regularizer):
    """Match mean and covariance of the codes to those of the vectors: weight · `wasserstein_loss`.

        >>> import quantizers
        >>> regularizer = quantizers.regularizers.Wasserstein(moves="codes")
        >>> quantizer = quantizers.VectorQuantizer(4, codebook_size=16, regularizers=[regularizer])

    In data parallel, the vectors are those of the rank's own batch.

    Args:
        weight: ≥ 0, the weight of the loss; 0.5 in the paper's autoencoders.
        moves: "both", or "codes" to treat the vectors as constant, as the paper's revised text does.

    Raises: ValueError for a weight that is negative or not finite, and for another name.
    """

    @checked
    def __init__(self, weight: Weight = 0.5, *, moves: Moves = "both") -> None:
        super().__init__(weight, moves)

    def __call__(self, z: Tensor, valid: Tensor, codes: Tensor) -> Tensor:
        """See Regularizer."""
        return self.weight * wasserstein_loss(z.detach() if self.moves == "codes" else z, codes, valid)
