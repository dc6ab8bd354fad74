"""Gumbel-softmax quantization: codes are sampled, and the gradient goes through the relaxed sample."""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from quantizers.clustering.kmeans import kmeans
from quantizers.core.arguments.checks import Positive, Size, Weight, check_as
from quantizers.core.arguments.options import checked
from quantizers.core.arguments.representation import options_in_repr
from quantizers.core.codebook import check_codes, init_codes_, lookup
from quantizers.core.gradients import exact_value
from quantizers.core.layout import Rows
from quantizers.core.output import QuantizerOutput
from quantizers.core.parallel import ProcessGroup
from quantizers.core.projection import Weights
from quantizers.core.registry import register
from quantizers.core.row_quantizer import RowQuantizer
from quantizers.core.state.writing import write, write_rows
from quantizers.kernels.highest.operation import highest_score
from quantizers.kernels.nearest.operation import nearest_code
from quantizers.kernels.soft.operation import soft_codes


@register("gumbel")
class GumbelQuantizer(RowQuantizer):
    """Gumbel-softmax: codes are sampled in training, with the gradient of a softmax over all codes.

    Use it for discrete latents with a KL term, as in DALL-E's dVAE (arXiv 2102.12092), and anneal the temperature.

    Jang, Gu, Poole: Categorical Reparameterization with Gumbel-Softmax, 2016 (arXiv 1611.01144), equations 1 and
    2; Maddison et al. 2016 (arXiv 1611.00712). With logits l_k and Gumbel noise g_k,

        k* = argmax_k (l_k + g_k)                           (1)
        y = softmax((l + g) / τ)                            (2)
        loss = kl_weight · KL(softmax(l) ‖ uniform)

    in nats per vector, mean over vectors. In training the value is Σ y_k e_k (hard=False), or the code of k* with
    the gradient that Σ y_k e_k has in the logits (hard=True). In evaluation it is the code of the largest logit,
    without noise.

    The papers leave the logits to the model. With logits="distance", the default, l_k = −‖z − e_k‖²: evaluation
    chooses the nearest code, and the codes learn from the choice too. In the benchmark's autoencoder (K 1024, D
    32, 1000 steps, three seeds, a temperature that fell from 1 to 1/16) it reached 22.9 to 23.2 dB with 53 to 72
    codes in use, and a learned linear map, as in DALL-E, 22.6 to 23.1 dB with 26 to 36. Plain VQ reached 22.0 to
    22.6 dB.

    **An exception to decode(indices) == quantized**: in training with hard=False the value is a mixture of codes,
    which no index names. The indices are then k*.

    Example:
        >>> quantizer = GumbelQuantizer(dim=16, codebook_size=64, hard=True)
        >>> quantizer.temperature = 0.5
        >>> quantized, indices, loss = quantizer(torch.randn(100, 16))
        >>> torch.equal(quantizer.decode(indices), quantized), bool(loss > 0)
        (True, True)

    Args:
        dim: channels of x. codebook_size: K ≥ 1.
        code_dim: channels of a code, default `dim`. channel_dim: axis of x's channels.
        logits: "distance" for −‖z − e‖², "linear" for a learned linear map of the vector.
        hard: see above.
        temperature: τ > 0, part of `state_dict`. Set it by assignment, `quantizer.temperature = 0.5`, or with one
            of `quantizers.schedules`.
        kl_weight: weight of the divergence, ≥ 0.
        learned_scale: multiply the logits by s = exp(log_scale), where log_scale [1] is learned and starts at 0.
            1/s is a learned temperature of softmax(logits); τ applies to the sample alone. No index in evaluation
            depends on s.

    The noise comes from the default generator of x's device: `torch.manual_seed` makes a run repeatable.

    Shapes: x [..., dim] → quantized [..., dim], indices [...], loss [].

    Raises: ValueError for a size below 1, unknown logits, or temperature ≤ 0.
    """

    draws_in_training = True
    same_indices_in_training = False
    same_loss_in_training = True  # the divergence does not depend on the sample

    _temperature: Tensor

    @checked
    def __init__(
        self,
        dim: Size,
        codebook_size: Size,
        *,
        code_dim: Size | None = None,
        channel_dim: int = -1,
        logits: Literal["linear", "distance"] = "distance",
        hard: bool = False,
        temperature: Positive = 1.0,
        kl_weight: Weight = 5e-4,
        learned_scale: bool = False,
    ) -> None:
        super().__init__(dim, codebook_size, code_dim=code_dim, channel_dim=channel_dim)
        self.hard = hard
        self.kl_weight = kl_weight
        self.embedding = nn.Parameter(torch.empty(codebook_size, self.code_dim))
        self.to_logits = Weights(self.code_dim, codebook_size) if logits == "linear" else None
        self.log_scale = nn.Parameter(torch.empty(1)) if learned_scale else None
        self.initial_temperature = temperature
        self.register_buffer("_temperature", torch.empty(()))

    def reset_parameters(self) -> None:
        """Draw the codes from N(0, 1/code_dim), and reset temperature and scale. The linear map resets itself."""
        init_codes_(self.embedding)
        if self.log_scale is not None:
            nn.init.zeros_(self.log_scale)
        self.temperature = self.initial_temperature

    @property
    def temperature(self) -> Tensor:
        """τ, a 0-d tensor; assign a number to set it."""
        return self._temperature

    @temperature.setter
    def temperature(self, value: float) -> None:
        self._temperature.fill_(check_as(Positive, "temperature", value))

    @property
    def codebook(self) -> Tensor:
        """All codes, [K, code_dim]."""
        return self.embedding

    @torch.no_grad()
    def set_codebook(self, codes: Tensor) -> None:
        """Replace all codes with `codes` [K, code_dim]. Raises: ValueError for another shape."""
        write(self, "embedding", check_codes(codes, self.codebook_size, self.code_dim))

    @property
    def has_table(self) -> bool:
        """Whether codes are chosen by distance. With linear logits, the map would not move with a code."""
        return self.to_logits is None

    @torch.no_grad()
    def move_codes(self, positions: Tensor, targets: Tensor, shares: Tensor) -> None:
        """See `LearnedCodes`."""
        codes, targets = self.embedding[positions], targets.to(self.embedding)
        moved = torch.lerp(codes, targets, shares.to(self.embedding)[:, None])
        write_rows(self, "embedding", positions, moved)

    def _initialize(self, z: Tensor, process_group: ProcessGroup) -> None:
        """Also set linear logits to 2z·e − ‖e‖² = ‖z‖² − ‖z − e‖², by which the nearest code has the largest."""
        codes = kmeans(z, self.codebook_size, process_group=process_group)
        self.set_codebook(codes)
        if self.to_logits is not None:
            write(self.to_logits, "weight", 2 * codes)
            write(self.to_logits, "bias", -codes.square().sum(-1))

    def _keys(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Keys [K, D] and bias [K]: logits = z·key + bias, up to a constant per vector, which softmax ignores."""
        if self.to_logits is not None:
            keys, bias = (weights.to(dtype) for weights in self.to_logits())
        else:
            codes = self.embedding.to(dtype)
            keys, bias = 2 * codes, -codes.square().sum(-1)
        if self.log_scale is None:
            return keys, bias
        scale = self.log_scale.to(dtype).exp()
        return scale * keys, scale * bias

    @property
    def value_is_code(self) -> bool:
        """Whether the value in training is a code: True with `hard`."""
        return self.hard

    def _quantize(self, rows: Rows) -> QuantizerOutput:
        z, valid = rows.vectors, rows.valid
        relaxed = self.training and not self.hard
        codes = self.embedding.to(z.dtype)
        keys, bias = self._keys(z.dtype)
        seed = torch.randint(2**62, (), device=z.device) if self.training else None
        # Where the value is a code, the code gets its gradient directly, and the relaxed sample serves the logits
        # alone.
        values = codes if relaxed else codes.detach()
        soft, sample, divergence = soft_codes(
            z, keys, bias, values, self._temperature.to(z.dtype, copy=True), seed
        )
        loss = self.kl_weight * divergence.where(valid, 0.0).sum() / valid.sum().clamp(min=1)
        if relaxed:
            return QuantizerOutput(soft, sample, loss)
        indices = sample if self.training else self._encode(z)
        return QuantizerOutput(exact_value(soft, lookup(codes, indices)), indices, loss)

    def _encode(self, z: Tensor) -> Tensor:
        if self.to_logits is None:
            return nearest_code(*self._compared(z))[0][0]
        return highest_score(z, *self.to_logits())

    def _compared(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return (z[None], self.embedding[None]) if self.to_logits is None else super()._compared(z)

    def _code_parameters(self) -> Iterator[nn.Parameter]:
        return (parameter for parameter in super()._code_parameters() if parameter is not self.log_scale)

    @property
    def _index_rule(self) -> dict[str, Any]:
        return {"choice": "nearest" if self.to_logits is None else "logits", "distance": "euclidean"}

    def _decode(self, indices: Tensor) -> Tensor:
        return lookup(self.embedding, indices)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {options_in_repr(self, ('logits', 'hard', 'temperature', 'kl_weight'))}"
