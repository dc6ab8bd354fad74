"""The residual quantizer of audiocraft, of which a model uses all codebooks or only the first."""

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.bases.stages import StagesAdapter
from quantizers.adapters.contracts.audio.encodec import FRAME_RATE, EncodecStagesAdapter
from quantizers.core.base import Quantizer


@dataclass
class QuantizedResult:
    """What the quantizers of audiocraft and moshi return."""

    x: Tensor
    """The quantized vectors, [B, D, T]."""
    codes: Tensor
    """[B, n, T], for the n codebooks that were used."""
    bandwidth: Tensor
    """The bandwidth of these codes in kbit/s, 0-d, in x's dtype."""
    penalty: Tensor | None = None
    """The loss, 0-d."""
    metrics: dict[str, Any] = field(default_factory=dict)


class AudiocraftAdapter(StagesAdapter):
    """Replaces ResidualVectorQuantizer of audiocraft (1.4.0a2; tested with a stand-in).

    (x [B, D, T], frame_rate) → QuantizedResult(x [B, D, T], codes [B, n, T], bandwidth, penalty, metrics);
    encode(x) → codes [B, n, T]; decode(codes) → [B, D, T].

    The n codebooks are the first `num_codebooks` of all N; the model sets their number by `set_num_codebooks`. If
    the original has `q_dropout`, a forward in training uses fewer, drawn uniformly from 1 to `num_codebooks`. The
    draw is made on the CPU and is the same for the whole batch. A quantizer whose last codebooks cannot be left
    out (QINCo) always uses all of them.

    The penalty is the mean of the losses of the n stages; here they are those of the new quantizer, already
    weighted, in training and in evaluation. In evaluation the original's are zero. The result is an object of the
    original's own class, because audiocraft's training loop checks for it. Its metrics are empty.

    With `keep_codebook` codes and averages are copied. Training continues with the gradients of ResidualQuantizer,
    which follow the chain rule: with straight-through stages x gets the commitment of the first stage only, and in
    the original that of every stage.

    Not supported: moving dead codes within forward. Use `quantizers.DeadCodeReplacement`, which moves them between
    steps. Orthogonal regularization is left out too; in the original it has no effect, because the codes get no
    gradient.

    Source: Copet et al.: Simple and Controllable Music Generation, 2023 (arXiv 2306.05284), after Défossez et al.
    2022 (arXiv 2210.13438); `audiocraft/quantization/vq.py`.
    """

    contract: ClassVar[str] = "audiocraft"
    classes: ClassVar[tuple[str, ...]] = ("ResidualVectorQuantizer",)

    _fewest: ClassVar[int] = 1
    """The least number of codebooks that `set_num_codebooks` takes."""

    n_q: int
    """How many codebooks are used."""
    q_dropout: bool
    """Whether a forward in training draws how many it uses. Can be assigned."""

    def __init__(self, quantizer: Quantizer, original: nn.Module) -> None:
        super().__init__(quantizer, original)
        self.q_dropout = bool(getattr(original, "q_dropout", False))
        total = self.total_codebooks
        used: int = getattr(original, "n_q", total)
        uses_all = used == getattr(original, "max_n_q", used)
        self.set_num_codebooks(total if uses_all else min(used, total))

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        # Other packages have a class of this name, whose number of codebooks is chosen in another way.
        _ = original.max_n_q, original.n_q, original.set_num_codebooks
        return EncodecStagesAdapter.read_spec(original.vq)

    @classmethod
    def stages(cls, original: Any) -> list[Any]:
        return list(original.vq.layers)

    @classmethod
    def codes(cls, stage: Any) -> Tensor:
        return EncodecStagesAdapter.codes(stage)

    @classmethod
    def averages(cls, stage: Any) -> tuple[Tensor, Tensor]:
        return EncodecStagesAdapter.averages(stage)

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        result = module(z, FRAME_RATE)
        yield "forward", result
        yield "encode", module.encode(z)
        yield "decode", module.decode(result.codes)

    def forward(self, x: Tensor, frame_rate: float) -> Any:
        """See the class. frame_rate: in vectors per second."""
        quantized, indices, losses = self._quantize(x, self._draw_count())
        count = indices.shape[-1]
        bandwidth = torch.tensor(count * math.log2(self.bins) * frame_rate / 1000).to(x)
        kind = _result_class(self.original)
        return kind(quantized, indices.movedim(-1, 1), bandwidth, penalty=losses.mean())

    def encode(self, x: Tensor) -> Tensor:
        """Codes [B, n, T] of x [B, D, T], those of evaluation in either mode."""
        return self._encode(x, self.n_q or None).movedim(0, 1)

    def decode(self, codes: Tensor) -> Tensor:
        """Vectors [B, D, T] of codes [B, n, T]."""
        return self._decode(codes.movedim(1, 0))

    def set_num_codebooks(self, n: int) -> None:
        """Use the first n codebooks: whole stages, at least one.

        Raises: ValueError for n outside [1, N], and for fewer than all codebooks of a quantizer that always uses
            all of them.
        """
        if not self._fewest <= n <= self.total_codebooks:
            raise ValueError(
                f"n is {n}, expected a number of codebooks from {self._fewest} to {self.total_codebooks}"
            )
        used = self._whole_stages(n) if n else 0
        if used:
            self._codebook_option(used)  # raises for a quantizer that cannot leave codebooks out
        self.n_q = used

    @property
    def num_codebooks(self) -> int:
        """How many codebooks are used."""
        return self.n_q

    @property
    def total_codebooks(self) -> int:
        """N, the number of all codebooks."""
        return self.num_quantizers

    @property
    def max_n_q(self) -> int:
        """N, the number of all codebooks."""
        return self.num_quantizers

    @property
    def bins(self) -> int:
        """K, the new quantizer's codebook size."""
        return self.codebook_size

    @property
    def dimension(self) -> int:
        """D."""
        return self.quantizer.dim

    def _draw_count(self) -> int | None:
        """How many codebooks this forward uses; None for all."""
        drops = self.training and self.q_dropout and self.quantizer.truncatable and self.n_q > 1
        return int(torch.randint(1, self.n_q + 1, ())) if drops else self.n_q or None


def _result_class(original: nn.Module) -> Any:
    """The class of the original's results, from the module that defines the original; ours if there is none."""
    modules = [sys.modules.get(base.__module__) for base in type(original).__mro__]
    found = (getattr(module, "QuantizedResult", None) for module in modules)
    return next((kind for kind in found if kind is not None), QuantizedResult)
