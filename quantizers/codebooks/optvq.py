"""OptVQ: in training, codes are assigned by optimal transport, so that all of them are used equally."""

from typing import Unpack

import torch
from torch import Tensor

from quantizers.codebooks.options import GradientOptions
from quantizers.codebooks.vector import VectorQuantizer
from quantizers.core.arguments.checks import Positive, Size, Weight
from quantizers.core.arguments.options import checked
from quantizers.core.registry import register
from quantizers.kernels.ops.nearest import highest_score
from quantizers.kernels.ops.transport import sinkhorn_potentials


@register("optvq")
class OptVQ(VectorQuantizer):
    """OptVQ: in training k = argmax_j (v_j − ‖z − e_j‖²/ε), v from Sinkhorn; in evaluation the nearest code.

    Zhang, Zheng, Zhou, Lu: Preventing Local Pitfalls in Vector Quantization via Optimal Transport, 2024 (arXiv
    2412.15195). The plan p(j|n) = softmax_j(v_j − ‖z_n − e_j‖²/ε) gives each code 1/K of the batch's mass, nearly:
    `iterations` of Sinkhorn bring it there; the index is a vector's largest share. Loss and gradient are VQ's,
    with the code so assigned. ε is `temperature` times the standard deviation of all squared distances between
    the batch and the codebook, so that the scale of the vectors does not matter.

    **In training indices, values and loss are those of the transport, not of the nearest code, and a vector's
    depend on the batch it is in.** `encode` and evaluation give the nearest code, which depends on nothing else.
    In either mode decode(indices) is the value.

    The published code iterates as often and at the same temperature (a factor of 10 there), but standardises
    distances, not their squares, transports in evaluation too, and has a linear map behind its codes, which here
    is SimVQ's. A single vector far out makes ε large, and the plan of the others in its batch vague. A batch with
    fewer vectors than codes cannot use all of them.

    Data parallel: each rank transports its own batch.

    Args:
        dim: channels of x. codebook_size: K ≥ 1.
        code_dim: channels of a code, default `dim`. channel_dim: axis of x's channels.
        distance: "euclidean", "cosine" for codes on the unit sphere, or "angle" for a search by angle alone.
        gradient: "straight_through", "rotation", "reflection" or a function (z, codes) → [..., D].
        temperature: > 0, see above; a lower one gives a plan of smaller distances, which takes more iterations.
        iterations: of Sinkhorn, ≥ 1, each a pass over all N · K distances.
        commitment_weight, codebook_weight: as in VectorQuantizer, with the defaults of the published code.
        decoder_gradient: also pass the decoder's gradient to the assigned codes.
        regularizers: as in VectorQuantizer.

    Shapes: x [..., dim] → quantized [..., dim], indices [...], loss [].

    Raises: ValueError for a size or iterations below 1, temperature ≤ 0, an unknown distance or gradient.
    """

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
        return self._looked_up(z, codebook, self._transport(*compared, valid))

    def _transport(self, z: Tensor, codebook: Tensor, valid: Tensor) -> Tensor:
        """The indices [N] of the largest shares of the plan."""
        x, codes = standardised(z, codebook, valid)
        # ‖x − e‖² without ‖x‖², which moves no row's softmax and no argmax.
        keys, bias = 2 / self.temperature * codes, -codes.square().sum(-1) / self.temperature
        potentials = sinkhorn_potentials(x, keys, bias, valid, self.iterations)
        return highest_score(x, keys, bias + potentials)


def standardised(z: Tensor, codebook: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [N, D] and codes [K, D], shifted and scaled alike, with squared distances of standard deviation 1.

    The deviation is that over all pairs of a valid row and a code. With z' = z − μ_z, e' = e − μ_e, m = μ_z − μ_e,
    ‖z − e‖² = ‖m‖² + (‖z'‖² + 2m·z') + (‖e'‖² − 2m·e') − 2z'·e', whose three last terms are uncorrelated over the
    pairs: Var = Var(‖z'‖² + 2m·z') + Var(‖e'‖² − 2m·e') + 4 tr(Σ_z Σ_e). All distances equal: divided by 1.
    """
    wide, codes = z.double(), codebook.double()
    mean, centre = _mean(wide, valid), codes.mean(0)
    rows, centred, offset = (wide - mean).where(valid[:, None], 0.0), codes - centre, mean - centre
    of_rows = rows.square().sum(-1) + 2 * (rows @ offset)
    of_codes = centred.square().sum(-1) - 2 * (centred @ offset)
    everywhere = torch.ones_like(codes[:, 0], dtype=torch.bool)
    spread = (_covariance(rows, valid) * _covariance(centred, everywhere)).sum()
    variance = _variance(of_rows, valid) + _variance(of_codes, everywhere) + 4 * spread
    scale = variance.where(variance > 0, 1.0) ** 0.25
    return ((wide - centre) / scale).where(valid[:, None], 0.0).to(z.dtype), (centred / scale).to(z.dtype)


def _mean(values: Tensor, valid: Tensor) -> Tensor:
    """Over the valid of [N, ...] rows."""
    kept = values.where(valid.view(-1, *[1] * (values.dim() - 1)), 0.0)
    return kept.sum(0) / valid.sum().clamp(min=1)


def _variance(values: Tensor, valid: Tensor) -> Tensor:
    return _mean((values - _mean(values, valid)).square(), valid)


def _covariance(rows: Tensor, valid: Tensor) -> Tensor:
    """[D, D] of centred rows, zero where not valid."""
    return rows.T @ rows / valid.sum().clamp(min=1)
