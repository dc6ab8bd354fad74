"""The residual quantizers of EnCodec's own package, and of codecs that build on its code."""

import abc
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from quantizers.adapters.bases.signatures import takes
from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.bases.stages import StagesAdapter

FRAME_RATE = 75  # vectors per second, of the published model at 24 kHz


@dataclass
class QuantizedResult:
    """The return value of EnCodec's quantizer."""

    quantized: Tensor
    """[B, D, T]."""
    codes: Tensor
    """[n, B, T], for the n codebooks that were used."""
    bandwidth: Tensor
    """The bandwidth of these codes in kbit/s, 0-d, in quantized's dtype."""
    penalty: Tensor | None = None
    """The loss, 0-d."""
    metrics: dict[str, Any] = field(default_factory=dict)


class PackageAdapter(StagesAdapter):
    """Reads the stages of the package, and of codecs that copied them."""

    @classmethod
    @abc.abstractmethod
    def check_call(cls, original: Any) -> None:
        """Raises: AttributeError for a class of another package, which models call in another way."""

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        cls.check_call(original)
        return cls.read_stages(cls.stages(original))

    @classmethod
    def read_stages(cls, stages: Sequence[Any]) -> QuantizerSpec:
        """What a model needs from its quantizer, read off the quantizer's stages."""
        first, (size, code_dim) = stages[0], cls.codes(stages[0]).shape
        dim = first.project_in.in_features if isinstance(first.project_in, nn.Linear) else code_dim
        keep_options = {
            "commitment_weight": first.commitment_weight,
            "decay": first._codebook.decay,
            "epsilon": first._codebook.epsilon,
        }
        options = {} if dim == code_dim else {"code_dim": code_dim}
        return QuantizerSpec(dim, size, cls.channel_dim, len(stages), options, keep_options)

    @classmethod
    def codes(cls, stage: Any) -> Tensor:
        codes: Tensor = stage._codebook.embed
        return codes

    @classmethod
    def averages(cls, stage: Any) -> tuple[Tensor, Tensor]:
        return stage._codebook.cluster_size, stage._codebook.embed_avg


class EncodecStagesAdapter(PackageAdapter):
    """Replaces ResidualVectorQuantization of the package encodec (0.1.1; tested with a stand-in), also in other
    codecs.

    (x [B, D, T], n_q=None) → (quantized [B, D, T], indices [n, B, T], losses [n, 1]).

    The losses are those of the new quantizer, stage by stage and already weighted, in training and in evaluation;
    in evaluation the original's are zero. QINCo has no separate stages: it has one loss, [1, 1], and always uses
    all codebooks.

    Not supported: moving dead codes within forward. Use `quantizers.DeadCodeReplacement`, which moves them between
    steps.

    Source: Défossez et al.: High Fidelity Neural Audio Compression, 2022 (arXiv 2210.13438);
    `encodec/quantization/core_vq.py`.
    """

    contract: ClassVar[str] = "encodec_stages"
    classes: ClassVar[tuple[str, ...]] = ("ResidualVectorQuantization",)

    @classmethod
    def check_call(cls, original: Any) -> None:
        if takes(original, "forward", "layers"):
            raise AttributeError(f"{type(original).__name__} returns the values of layers, as SpeechTokenizer's")

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        yield "forward", module(z)
        codes = module.encode(z)
        yield "encode", codes
        yield "decode", module.decode(codes)

    def forward(self, x: Tensor, n_q: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """See the class. n_q: how many codebooks to use, from the first; default all."""
        quantized, indices, losses = self._quantize(x, n_q or None)
        return quantized, indices.movedim(-1, 0), losses[:, None]

    def encode(self, x: Tensor, n_q: int | None = None) -> Tensor:
        """Indices [n, B, T] of x [B, D, T]."""
        return self._encode(x, n_q or None)

    def decode(self, q_indices: Tensor) -> Tensor:
        """Vectors [B, D, T] of indices [n, B, T]."""
        return self._decode(q_indices)


class QuantizerAdapter(PackageAdapter):
    """A base for the contracts of the quantizer around the stages."""

    @classmethod
    def stages(cls, original: Any) -> list[Any]:
        return list(original.vq.layers)

    @property
    def n_q(self) -> int:
        """N, the number of codebooks."""
        return self.num_quantizers

    @property
    def bins(self) -> int:
        """K, the new quantizer's codebook size."""
        return self.codebook_size

    @property
    def dimension(self) -> int:
        """D."""
        return self.quantizer.dim


class EncodecAdapter(QuantizerAdapter):
    """Replaces ResidualVectorQuantizer of the package encodec (0.1.1; tested with a stand-in).

    (x [B, D, T], frame_rate, bandwidth=None) → QuantizedResult(quantized [B, D, T], codes [n, B, T], bandwidth,
    penalty).

    A bandwidth in kbit/s allows for n = ⌊bandwidth / (log2 K · frame_rate / 1000)⌋ codebooks, at least one, where
    K is the new quantizer's codebook size. Here n is at most N, the number of codebooks, and the bandwidth in the
    result is that of the returned codes; the original counts on beyond N. As in the original, the penalty is the
    mean of the losses of the n stages; here they are those of the new quantizer, already weighted. The rest is as
    in "encodec_stages".

    Source: `encodec/quantization/vq.py`; see EncodecStagesAdapter for the paper.
    """

    contract: ClassVar[str] = "encodec"
    classes: ClassVar[tuple[str, ...]] = ("ResidualVectorQuantizer",)

    @classmethod
    def check_call(cls, original: Any) -> None:
        _ = original.get_num_quantizers_for_bandwidth
        if hasattr(original, "infer") or takes(original, "encode", "st"):
            raise AttributeError(f"{type(original).__name__} is called as WavTokenizer's or AcademiCodec's")

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        yield "forward", module(z, FRAME_RATE)
        codes = module.encode(z, FRAME_RATE)
        yield "encode", codes
        yield "decode", module.decode(codes)

    def forward(self, x: Tensor, sample_rate: float, bandwidth: float | None = None) -> QuantizedResult:
        """See the class. sample_rate: the frame rate, in vectors per second."""
        count = self.get_num_quantizers_for_bandwidth(sample_rate, bandwidth)
        quantized, indices, losses = self._quantize(x, count)
        used = torch.tensor(count * self.get_bandwidth_per_quantizer(sample_rate)).to(x)
        return QuantizedResult(quantized, indices.movedim(-1, 0), used, losses.mean())

    def get_bandwidth_per_quantizer(self, sample_rate: float) -> float:
        """The bandwidth of one codebook in kbit/s, at `sample_rate` vectors per second."""
        return math.log2(self.codebook_size) * sample_rate / 1000

    def get_num_quantizers_for_bandwidth(self, sample_rate: float, bandwidth: float | None = None) -> int:
        """n, see the class; all codebooks for bandwidth None and 0."""
        if not bandwidth or bandwidth < 0:
            return self.num_quantizers
        return self._whole_stages(max(1, math.floor(bandwidth / self.get_bandwidth_per_quantizer(sample_rate))))

    def encode(self, x: Tensor, sample_rate: float, bandwidth: float | None = None) -> Tensor:
        """Indices [n, B, T] of x [B, D, T]."""
        return self._encode(x, self.get_num_quantizers_for_bandwidth(sample_rate, bandwidth))

    def decode(self, codes: Tensor) -> Tensor:
        """Vectors [B, D, T] of codes [n, B, T]."""
        return self._decode(codes)


def check_first_stage(st: int | None) -> None:
    """Raises: ValueError for another stage than the first."""
    if st:
        raise ValueError(f"st is {st}, but stages quantize what the ones before them leave; expected 0")
