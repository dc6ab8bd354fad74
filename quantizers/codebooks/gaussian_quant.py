"""Gaussian Quant: fixed Gaussian codes, and a Gaussian VAE whose information fits them."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quantizers.core.arguments.checks import FromZero, Size, Weight
from quantizers.core.arguments.options import checked
from quantizers.core.arguments.representation import options_in_repr
from quantizers.core.codebook import lookup
from quantizers.core.gradients import straight_through
from quantizers.core.layout import Rows
from quantizers.core.output import QuantizerOutput
from quantizers.core.projection import Projection
from quantizers.core.registry import register
from quantizers.core.row_quantizer import RowQuantizer
from quantizers.core.state.half_state import widened
from quantizers.core.state.read_only import read_only
from quantizers.kernels.highest.operation import highest_score


@register("gaussian_quant")
class GaussianQuant(RowQuantizer):
    """Gaussian Quant: train a Gaussian VAE, and quantize with codes that are fixed draws of its prior.

    Use it where no codebook should be learned: all codes c_k ~ N(0, I) are drawn once. A linear layer gives the
    VAE's posterior N(μ, σ²) of each vector: [μ, v] = W x + b and σ² = sigmoid(v), below the prior's variance of 1.

        training:   value = μ + σ · ε,  ε ~ N(0, I)
        k = argmax_k log N(c_k; μ, σ²) − β log N(c_k; 0, 1)
          = argmax_k Σ_d c_kd · μ_d / σ_d² − ½ c_kd² · (1 / σ_d² − β)           (in both modes)
        evaluation: value = c_k

        KL_n = ½ Σ_d (μ_d² + σ_d² − 1 − log σ_d²)
        loss = kl_weight · mean_n max(0, |KL_n − ln K| − tolerance · ln 2)

    A code is about as near to μ as a sample of the posterior where KL_n, the information in a vector, is ln K. For
    D channels and small σ, with V the volume of the unit ball,

        E (c_kd − μ_d)² / σ_d² = Γ(1 + 2/D) · 2πe / (D · V^(2/D)) · e^(−2 (ln K − KL_n) / D)

    which at KL_n = ln K is 8.5, 2.7 and 1.7 for one, two and four channels, and tends to 1. A vector with more
    information gets a code that is too far away, one with less wastes codes. So the loss holds KL_n at ln K,
    within a band of ± tolerance bits. The paper's target-divergence constraint has the same band, but minimizes
    weight · KL_n: with weight 1 inside, a larger weight above and a smaller one below, both of which adapt during
    training. The loss here has no state, and below the band it raises the divergence.

    Several groups of channels with an index each, as in the paper, are `create("grouped",
    quantizer="gaussian_quant", num_groups=...)`. The published code draws the codes from a quasi-random sequence.

    In the benchmark's autoencoder (K 1024, D 32, 1000 steps, three seeds) it reached 23.4 to 23.9 dB with 345 to
    439 codes in use, where plain VQ reached 22.0 to 22.6 dB with 18 to 31.

    **An exception to decode(indices) == quantized**: in training the value is a sample of the posterior. The
    indices are those of evaluation, which gives μ the straight-through gradient of the code.

    Example:
        >>> quantizer = GaussianQuant(dim=16, codebook_size=256, code_dim=4)
        >>> quantized, indices, loss = quantizer.eval()(torch.randn(100, 16))
        >>> torch.equal(quantizer.decode(indices), quantized), quantizer.codebook.shape
        (True, torch.Size([256, 4]))

    Args:
        dim: channels of x. codebook_size: K ≥ 1.
        code_dim: channels of a code, default `dim`. x is projected to μ and v always, and a code to `dim`
            channels where its own number differs.
        channel_dim: axis of x's channels.
        kl_weight: weight of the loss, ≥ 0. It holds the divergence where it exceeds the slope of the model's own
            loss against it, per nat of one vector; the default is for a mean squared error of the order of 0.01.
        tolerance: half the width of the band, ≥ 0, in bits per vector.
        beta: β ≥ 0; 1 in the paper. With 0 the code is the likeliest one under the posterior.

    Noise comes from the default generator of x's device.

    Shapes: x [..., dim] → quantized [..., dim], indices [...], loss [].

    Raises: ValueError for a size below 1, and a negative kl_weight, tolerance or beta.

    Source: Xu et al.: Vector Quantization using Gaussian Variational Autoencoder, 2025 (arXiv 2512.06609).
    """

    value_is_code = False
    draws_in_training = True

    codes: Tensor

    @checked
    def __init__(
        self,
        dim: Size,
        codebook_size: Size,
        *,
        code_dim: Size | None = None,
        channel_dim: int = -1,
        kl_weight: Weight = 1e-2,
        tolerance: FromZero = 0.5,
        beta: Weight = 1.0,
    ) -> None:
        super().__init__(dim, codebook_size, code_dim=code_dim, channel_dim=channel_dim)
        self.project_in = Projection(dim, 2 * self.code_dim)
        self.kl_weight = kl_weight
        self.tolerance = tolerance
        self.beta = beta
        self._rate = math.log(codebook_size)  # here, since graphs of torch 2.4 with free sizes have no logarithm
        self.register_buffer("codes", torch.empty(codebook_size, self.code_dim))

    def reset_parameters(self) -> None:
        """Draw new codes. The projections reset themselves."""
        nn.init.normal_(self.codes)

    @property
    def codebook(self) -> Tensor:
        """All codes, [K, code_dim]."""
        return read_only(widened(self.codes))

    @property
    def _index_rule(self) -> dict[str, Any]:
        return {"choice": "density", "beta": self.beta}

    def _unquantized(self, z: Tensor) -> Tensor:
        return _posterior(z)[0]

    def _quantize(self, rows: Rows) -> QuantizerOutput:
        mean, log_variance = _posterior(rows.vectors)
        indices = self._encode(rows.vectors.detach())
        if self.training:
            value = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        else:
            value = straight_through(mean, self._decode(indices).to(mean.dtype))
        return QuantizerOutput(value, indices, self._loss(mean, log_variance, rows.valid))

    def _loss(self, mean: Tensor, log_variance: Tensor, valid: Tensor) -> Tensor:
        # All terms are divided by the count first: no square or gradient overflows before their mean would.
        count = valid.sum().clamp(min=1).to(mean.dtype)
        each = (mean / count.sqrt()).square() + (torch.expm1(log_variance) - log_variance) / count
        gap = (each.sum(-1) / 2 - self._rate / count).abs()
        beyond = F.relu(gap - self.tolerance * math.log(2) / count)
        return self.kl_weight * beyond.where(valid, 0.0).sum()

    def _encode(self, z: Tensor) -> Tensor:
        mean, log_variance = _posterior(z)
        # All scores of a vector times its smallest variance: no ratio exceeds one, and none overflows.
        least = log_variance.amin(-1, keepdim=True)
        precision = (least - log_variance).exp()
        features = torch.cat([mean * precision, -0.5 * (precision - self.beta * least.exp())], -1)
        codes = widened(self.codes)
        return highest_score(features, torch.cat([codes, codes.square()], -1), codes.new_zeros(len(codes)))

    def _decode(self, indices: Tensor) -> Tensor:
        return lookup(widened(self.codes), indices)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {options_in_repr(self, ('kl_weight', 'tolerance', 'beta'))}"


def _posterior(z: Tensor) -> tuple[Tensor, Tensor]:
    """μ and log σ² [N, code_dim], of vectors [μ, v] of 2 · code_dim channels."""
    mean, v = z.chunk(2, -1)
    return mean, F.logsigmoid(v)
