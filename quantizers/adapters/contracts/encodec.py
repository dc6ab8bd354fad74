"""EnCodec's residual quantizers, as in its own package and in codecs that build on its code."""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from quantizers.adapters.bases.adapter import Place
from quantizers.adapters.bases.stages import StagesAdapter


@dataclass
class QuantizedResult:
    """What EnCodec's quantizer returns."""

    quantized: Tensor
    """[B, D, T]."""
    codes: Tensor
    """[n, B, T], of the n codebooks that were used."""
    bandwidth: Tensor
    """kbit/s of these codes, 0-d, in quantized's dtype."""
    penalty: Tensor | None = None
    """The loss, 0-d."""
    metrics: dict[str, Any] = field(default_factory=dict)


class _PackageAdapter(StagesAdapter):
    """How the package's stages are read."""

    @classmethod
    def read(cls, original: Any) -> Place:
        stages = cls.stages(original)
        first, (size, code_dim) = stages[0], cls.codes(stages[0]).shape
        dim = first.project_in.in_features if isinstance(first.project_in, nn.Linear) else code_dim
        kept = {
            "commitment_weight": first.commitment_weight,
            "decay": first._codebook.decay,
            "epsilon": first._codebook.epsilon,
        }
        options = {} if dim == code_dim else {"code_dim": code_dim}
        return Place(dim, size, cls.channel_dim, len(stages), options, kept)

    @classmethod
    def codes(cls, stage: Any) -> Tensor:
        codes: Tensor = stage._codebook.embed
        return codes

    @classmethod
    def averages(cls, stage: Any) -> tuple[Tensor, Tensor]:
        return stage._codebook.cluster_size, stage._codebook.embed_avg


class EncodecStagesAdapter(_PackageAdapter):
    """(x [B, D, T], n_q=None) → (quantized [B, D, T], indices [n, B, T], losses [n, 1]): EnCodec's stages alone.

    Défossez et al.: High Fidelity Neural Audio Compression, 2022 (arXiv 2210.13438), the published code. The
    losses are ours, stage by stage, already weighted, in training and in evaluation, where the original's are
    zero. A quantizer without stages of its own (QINCo) has one loss, [1, 1], and always uses all codebooks. The
    original moves dead codes in its forward; ours are moved between steps, by `quantizers.DeadCodeReplacement`.
    """

    contract: ClassVar[str] = "encodec_stages"
    classes: ClassVar[tuple[str, ...]] = ("ResidualVectorQuantization",)

    def forward(self, x: Tensor, n_q: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """As above, with the first n_q codebooks, default all."""
        quantized, indices, losses = self._quantize(x, n_q or None)
        return quantized, indices.movedim(-1, 0), losses[:, None]

    def encode(self, x: Tensor, n_q: int | None = None) -> Tensor:
        """[n, B, T] of x [B, D, T]."""
        return self._encode(x, n_q or None)

    def decode(self, q_indices: Tensor) -> Tensor:
        """[B, D, T] of indices [n, B, T]."""
        return self._decode(q_indices)


class EncodecAdapter(_PackageAdapter):
    """(x [B, D, T], frame_rate, bandwidth=None) → QuantizedResult(quantized, codes [n, B, T], bandwidth, penalty).

    A bandwidth in kbit/s allows for n = ⌊bandwidth / (log2 K · frame_rate / 1000)⌋ codebooks, at least one; K is
    that of our quantizer. The original's count goes on beyond the codebooks that it has; here n is at most N, and
    the bandwidth of the result that of the codes in it. penalty is, as the original's, the mean over the n stages
    of their losses: of ours, already weighted. The rest is as of "encodec_stages".
    """

    contract: ClassVar[str] = "encodec"
    classes: ClassVar[tuple[str, ...]] = ("ResidualVectorQuantizer",)

    @classmethod
    def stages(cls, original: Any) -> list[Any]:
        # Others have a class of this name, which does not count by bandwidth and is called in another way.
        _ = original.get_num_quantizers_for_bandwidth
        return list(original.vq.layers)

    def forward(self, x: Tensor, sample_rate: float, bandwidth: float | None = None) -> QuantizedResult:
        """As above; sample_rate: vectors per second."""
        count = self.get_num_quantizers_for_bandwidth(sample_rate, bandwidth)
        quantized, indices, losses = self._quantize(x, count)
        used = torch.tensor(count * self.get_bandwidth_per_quantizer(sample_rate)).to(x)
        return QuantizedResult(quantized, indices.movedim(-1, 0), used, losses.mean())

    def get_bandwidth_per_quantizer(self, sample_rate: float) -> float:
        """kbit/s of one codebook at that many vectors per second."""
        return math.log2(self.codebook_size) * sample_rate / 1000

    def get_num_quantizers_for_bandwidth(self, sample_rate: float, bandwidth: float | None = None) -> int:
        """n as above; all for no bandwidth, and for 0."""
        if not bandwidth or bandwidth < 0:
            return self.num_quantizers
        return self._whole(max(1, math.floor(bandwidth / self.get_bandwidth_per_quantizer(sample_rate))))

    def encode(self, x: Tensor, sample_rate: float, bandwidth: float | None = None) -> Tensor:
        """[n, B, T] of x [B, D, T]."""
        return self._encode(x, self.get_num_quantizers_for_bandwidth(sample_rate, bandwidth))

    def decode(self, codes: Tensor) -> Tensor:
        """[B, D, T] of codes [n, B, T]."""
        return self._decode(codes)

    @property
    def n_q(self) -> int:
        """N, how many codebooks there are."""
        return self.num_quantizers

    @property
    def bins(self) -> int:
        """K of ours."""
        return self.codebook_size

    @property
    def dimension(self) -> int:
        """D."""
        return self.quantizer.dim
