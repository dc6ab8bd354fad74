"""Sampled bits: the binary mapper of the Free Transformer."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from quantizers.core.arguments.checks import FromZero, Size, check_tensor
from quantizers.core.arguments.options import checked
from quantizers.core.gradients import exact_value
from quantizers.core.layout import Rows, to_rows
from quantizers.core.output import QuantizerOutput
from quantizers.core.registry import register
from quantizers.kernels.common.compat import nan
from quantizers.kernels.common.dispatch import without_autocast
from quantizers.scalar.bits import bit_entropy, bits_for
from quantizers.scalar.grid import GridQuantizer

LN_2 = math.log(2)


@register("bernoulli")
class BernoulliQuantizer(GridQuantizer):
    """The binary mapper of the Free Transformer: each of L = log₂ K channels is a logit from which a bit is drawn.

    In training each bit is drawn on its own; in evaluation it is the likelier value, and zero if both are equally
    likely. A code is ±1 per channel, and decode(indices) == quantized in both modes.

    With p_i = σ(z_i):

        P(bit_i = 1) = p_i, q_i = 2 bit_i − 1, index = Σ_i 2^i · bit_i, i from 0
        KL_n = Σ_i (ln 2 − H(p_ni)) ≤ L ln 2
        loss = kl_weight · mean_n max(0, KL_n − free_nats)    (equation (5) of the paper, its free bits)

    The loss is in nats per vector and the same in both modes. KL_n is the divergence of the bits' distribution
    from the uniform one over all codes, a sum over bits that is finite at any logit. A vector may carry free_nats
    at no cost; one that carries less gets no gradient from the loss.

    The gradient is that of the code's mean, 2σ(z) − 1, in both modes. The paper's mapper returns a one-hot vector
    of 2^L entries with the gradient of their probabilities Π_i σ(±z_i); multiplied by the table of all codes, that
    has the value and the gradient computed here, without a table.

    Example:
        >>> import torch
        >>> from quantizers import BernoulliQuantizer
        >>> quantizer = BernoulliQuantizer(3, codebook_size=8).eval()
        >>> quantized, indices, loss = quantizer(torch.tensor([[0.2, -3.0, 1.5]]))
        >>> quantized, indices
        (tensor([[ 1., -1.,  1.]]), tensor([5]))

    Args:
        dim: channels of x. A code has L channels; where `dim` differs, x is projected.
        codebook_size: K, a power of two from 2 to 2⁶³.
        channel_dim: axis of x's channels.
        kl_weight: weight of the divergence, ≥ 0.
        free_nats: see above, ≥ 0; ln 2 is one bit. From L ln 2 on the loss is zero.

    Draws come from the default generator of x's device.

    Shapes: x [..., dim] → quantized [..., dim], indices [...], loss [].

    Raises: ValueError for another codebook size, a negative kl_weight or free_nats.

    Source: Fleuret: The Free Transformer, 2025 (arXiv 2510.17558).
    """

    draws_in_training = True
    same_indices_in_training = False
    same_loss_in_training = True  # the divergence does not depend on the sample

    @checked
    def __init__(
        self,
        dim: Size,
        codebook_size: int,
        *,
        channel_dim: int = -1,
        kl_weight: FromZero = 5e-4,
        free_nats: FromZero = LN_2,
    ) -> None:
        super().__init__(dim, (2,) * bits_for(codebook_size), channel_dim=channel_dim)
        self.kl_weight = kl_weight
        self.free_nats = free_nats

    def log_prob(self, x: Tensor, indices: Tensor) -> Tensor:
        """The log-probability in nats of drawing `indices` [...] for x: float32 [...] (float64 for float64 x).

        It is NaN for vectors that are not finite and for index −1. Its gradient reaches x, except where it is NaN.

        Raises: ValueError where the shapes differ; TypeError or IndexError as `decode`.
        """
        rows = to_rows(x, None, self.dim, self.channel_dim)
        if check_tensor("indices", indices).shape != rows.shape:
            raise ValueError(
                f"indices have shape {tuple(indices.shape)}, expected {tuple(rows.shape)}, one per vector"
            )
        flat = self._check_indices(indices).reshape(-1)
        with without_autocast(x.device):
            projected = self._project_in(rows)
            signs = self._decode(flat.clamp(min=0)).to(projected.vectors.dtype)
            each = F.logsigmoid(signs * projected.vectors).sum(-1)
        return each.where(projected.valid & (flat >= 0), nan(each)).reshape(rows.shape)

    def _quantize(self, rows: Rows) -> QuantizerOutput:
        z, valid = rows.vectors, rows.valid
        p = torch.sigmoid(z)
        bits = (
            torch.rand_like(z) < p if self.training else z > 0
        )  # rand is in [0, 1), so p = 0 and p = 1 are certain
        digits = bits.to(torch.int64)
        quantized = exact_value(2 * p - 1, self._values(digits, z.dtype))
        return QuantizerOutput(quantized, self._index(digits), self._loss(z, valid))

    def _loss(self, z: Tensor, valid: Tensor) -> Tensor:
        divergence = (math.log(2) - bit_entropy(z)).sum(-1)
        excess = F.relu(divergence - self.free_nats).where(valid, 0.0)
        return self.kl_weight * excess.sum() / valid.sum().clamp(min=1)

    def _encode(self, z: Tensor) -> Tensor:
        return self._index((z > 0).to(torch.int64))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, kl_weight={self.kl_weight:.4g}, free_nats={self.free_nats:.4g}"

    @property
    def _index_rule(self) -> dict[str, Any]:
        return {**super()._index_rule, "value": 1.0}

    def _values(self, digits: Tensor, dtype: torch.dtype) -> Tensor:
        return (2 * digits - 1).to(dtype)
