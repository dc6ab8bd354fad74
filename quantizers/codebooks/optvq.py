"""OptVQ: codes that are assigned by optimal transport in training, so that all are used equally."""

import torch
from torch import Tensor
from typing_extensions import Unpack

from quantizers.codebooks.options import GradientOptions
from quantizers.codebooks.vector import VectorQuantizer
from quantizers.core.arguments.checks import Positive, Size, Weight
from quantizers.core.arguments.options import checked
from quantizers.core.registry import register
from quantizers.kernels.common.wide import narrowed, wide, wide_device
from quantizers.kernels.highest.operation import highest_score
from quantizers.kernels.transport.operation import sinkhorn_potentials


@register("optvq")
class OptVQ(VectorQuantizer):
    """OptVQ: in training, codes are assigned by optimal transport, so that a batch uses all codes about equally.

    Use it against codebook collapse when batches contain many more vectors than there are codes. Evaluation gives
    the nearest code.

    Zhang, Zheng, Zhou, Lu: Preventing Local Pitfalls in Vector Quantization via Optimal Transport, 2024 (arXiv
    2412.15195). In training

        p(j|n) = softmax_j(v_j − ‖z_n − e_j‖²/ε), k_n = argmax_j p(j|n)

    where `iterations` steps of Sinkhorn choose the potentials v so that each code gets nearly 1/K of the batch's
    mass. Loss and gradient are VQ's, with the code so assigned. ε is `temperature` times the standard deviation of
    all squared distances between the batch and the codebook, so that the scale of the vectors does not matter.

    **In training, indices, values and loss follow the transport plan, not the nearest code, and depend on the
    other vectors of the batch.** `encode` and evaluation give the nearest code, which depends on nothing else. In
    either mode decode(indices) is the value.

    **The defaults of the weights are those of VQ, swapped**: commitment_weight=1 and codebook_weight=¼, where VQ
    has ¼ and 1. The published code and its configurations put β = ¼ on the codebook term.

    The published code also uses 5 iterations and this temperature (as a factor of 10). It differs in three points:
    it standardizes distances instead of their squares, it transports in evaluation too, and it has a linear map
    behind its codes, which here is SimVQ's. A single vector far from the others makes ε large, and the plan of
    its whole batch vague. A batch with fewer vectors than codes cannot use all codes.

    Data parallel: each rank transports its own batch.

    Example:
        >>> quantizer = OptVQ(dim=2, codebook_size=4)
        >>> x = torch.randn(400, 2) + 10  # far from all codes: one of them is the nearest code of most vectors
        >>> bool(quantizer(x).indices.bincount(minlength=4).min() > 50)
        True

    Args:
        dim: channels of x. codebook_size: K ≥ 1.
        code_dim: channels of a code, default `dim`. channel_dim: axis of x's channels.
        distance: "euclidean", "cosine" for codes on the unit sphere, or "angle" for a search by angle alone.
        gradient: "straight_through", "rotation", "reflection" or a function (z, codes) → [..., D].
        temperature: > 0, see above. A lower one gives a plan with smaller distances, which takes more iterations.
        iterations: Sinkhorn iterations, ≥ 1; each passes over all N · K distances.
        commitment_weight, codebook_weight: of VQ's loss, see above for the defaults.
        decoder_gradient: also pass the decoder's gradient to the assigned codes.
        regularizers: as in VectorQuantizer.

    Shapes: x [..., dim] → quantized [..., dim], indices [...], loss [].

    Raises: ValueError for a size or iterations below 1, temperature ≤ 0, an unknown distance or gradient.
    """

    always_in_repr = (*VectorQuantizer.always_in_repr, "temperature", "iterations")

    index_depends_on_batch = True
    same_indices_in_training = False

    @checked
    def __init__(
        self,
        dim: Size,
        codebook_size: Size,
        *,
        temperature: Positive = 0.1,
        iterations: Size = 5,
        commitment_weight: Weight = 1.0,
        codebook_weight: Weight = 0.25,
        decoder_gradient: bool = False,
        **options: Unpack[GradientOptions],
    ) -> None:
        super().__init__(
            dim,
            codebook_size,
            commitment_weight=commitment_weight,
            codebook_weight=codebook_weight,
            decoder_gradient=decoder_gradient,
            **options,
        )
        self.temperature = temperature
        self.iterations = iterations

    def _assign(self, z: Tensor, codebook: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if not self.training:
            return super()._assign(z, codebook, valid)
        compared = self._to_search_space(z.detach()), self._to_search_space(codebook.detach())
        return self._codes_and_losses(z, codebook, self._transport(*compared, valid))

    def _transport(self, z: Tensor, codebook: Tensor, valid: Tensor) -> Tensor:
        """The index [N] of the largest share of each vector in the transport plan."""
        x, codes = standardized(z, codebook, valid)
        # ‖x − e‖² without ‖x‖², which changes neither the softmax of a row nor its argmax.
        keys, bias = 2 / self.temperature * codes, -codes.square().sum(-1) / self.temperature
        potentials = sinkhorn_potentials(x, keys, bias, valid, self.iterations)
        return highest_score(x, keys, bias + potentials)


def standardized(z: Tensor, codebook: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Shift and scale rows [N, D] and codes [K, D] alike, to squared distances of standard deviation 1.

    The deviation is taken over all pairs of a valid row and a code. With z' = z − μ_z, e' = e − μ_e and m = μ_z −
    μ_e, ‖z − e‖² = ‖m‖² + (‖z'‖² + 2m·z') + (‖e'‖² − 2m·e') − 2z'·e'. The last three terms are uncorrelated over
    the pairs: Var = Var(‖z'‖² + 2m·z') + Var(‖e'‖² − 2m·e') + 4 tr(Σ_z Σ_e). Where all distances are equal, the
    scale is 1.
    """
    dtype, device = z.dtype, z.device
    z, codes, valid = wide(z), wide(codebook), valid.to(wide_device(device))
    mean, centre = _mean(z, valid), codes.mean(0)
    rows, centred, offset = (z - mean).where(valid[:, None], 0.0), codes - centre, mean - centre
    row_terms = rows.square().sum(-1) + 2 * (rows @ offset)
    code_terms = centred.square().sum(-1) - 2 * (centred @ offset)
    everywhere = torch.ones_like(codes[:, 0], dtype=torch.bool)
    spread = (_covariance(rows, valid) * _covariance(centred, everywhere)).sum()
    variance = _variance(row_terms, valid) + _variance(code_terms, everywhere) + 4 * spread
    scale = variance.where(variance > 0, 1.0) ** 0.25
    standard = ((z - centre) / scale).where(valid[:, None], 0.0)
    return narrowed(standard, dtype, device), narrowed(centred / scale, dtype, device)


def _mean(values: Tensor, valid: Tensor) -> Tensor:
    """The mean over the valid rows of [N, ...]."""
    counted = values.where(valid.view(-1, *[1] * (values.dim() - 1)), 0.0)
    return counted.sum(0) / valid.sum().clamp(min=1)


def _variance(values: Tensor, valid: Tensor) -> Tensor:
    return _mean((values - _mean(values, valid)).square(), valid)


def _covariance(rows: Tensor, valid: Tensor) -> Tensor:
    """The covariance [D, D] of centred rows, which are zero where not valid."""
    return rows.T @ rows / valid.sum().clamp(min=1)
