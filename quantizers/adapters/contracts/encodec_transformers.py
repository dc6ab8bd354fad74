"""EnCodec's residual quantizer as transformers has it, and those of X-Codec and Higgs Audio, made after it."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from quantizers.adapters.bases.adapter import Place
from quantizers.adapters.bases.stages import StagesAdapter
from quantizers.core.output import QuantizerOutput


class TransformersEncodecAdapter(StagesAdapter):
    """encode(x [B, D, T], bandwidth=None) → codes [n, B, T]; decode(codes) → [B, D, T].

    A bandwidth in kbit/s allows for n = ⌊1000 · bandwidth / (log2 K · frame_rate)⌋ codebooks, at least one; K is
    that of our quantizer. The original's count goes on beyond the codebooks that it has; here n is at most N.

    These models pass codes from their encoder to their decoder, without a gradient or a loss: their own forward
    does not train the encoder. The original has no forward; this one gives our output, for a loop that trains:

        quantized, codes, loss = model.quantizer(model.encoder(audio), bandwidth=6.0)
        audio_values = model.decoder(quantized)

    `encode` gives the indices of evaluation and moves no state, in either mode.
    """

    contract: ClassVar[str] = "encodec_transformers"
    classes: ClassVar[tuple[str, ...]] = ("EncodecResidualVectorQuantizer",)

    @classmethod
    def read(cls, original: Any) -> Place:
        stages = cls.stages(original)
        first, (size, code_dim) = stages[0], cls.codes(stages[0]).shape
        entry = getattr(first, "project_in", None)
        dim = entry.in_features if isinstance(entry, nn.Linear) else code_dim
        return Place(dim, size, cls.channel_dim, len(stages), {} if dim == code_dim else {"code_dim": code_dim})

    @classmethod
    def codes(cls, stage: Any) -> Tensor:
        codes: Tensor = stage.codebook.embed
        return codes

    @classmethod
    def averages(cls, stage: Any) -> tuple[Tensor, Tensor]:
        return stage.codebook.cluster_size, stage.codebook.embed_avg

    def forward(self, x: Tensor, mask: Tensor | None = None, *, bandwidth: float | None = None) -> QuantizerOutput:
        """Our output for x [B, D, T]: quantized [B, D, T], indices [B, T, n], loss []. mask: bool [B, T]."""
        count = self.get_num_quantizers_for_bandwidth(bandwidth)
        return self.quantizer(x, mask, **self._first(count))  # type: ignore[no-any-return]

    def encode(self, embeddings: Tensor, bandwidth: float | None = None) -> Tensor:
        """As above."""
        return self._encode(embeddings, self.get_num_quantizers_for_bandwidth(bandwidth))

    def decode(self, codes: Tensor) -> Tensor:
        """As above."""
        return self._decode(codes)

    @property
    def frame_rate(self) -> float:
        """Vectors per second, the model's."""
        rate: float = self.original.frame_rate
        return rate

    def get_num_quantizers_for_bandwidth(self, bandwidth: float | None = None) -> int:
        """n as above; all for no bandwidth, and for 0."""
        if not bandwidth or bandwidth < 0:
            return self.num_quantizers
        return self._whole(max(1, self._count(bandwidth)))

    def _count(self, bandwidth: float) -> int:
        return math.floor(bandwidth * 1000 / (math.log2(self.codebook_size) * self.frame_rate))


class XcodecAdapter(TransformersEncodecAdapter):
    """As of "encodec_transformers", for XcodecModel and HiggsAudioV2TokenizerModel.

    n = ⌊bandwidth / (log2 K · frame_rate / 1000)⌋: another rounding. The models' forward passes codes too.
    """

    contract: ClassVar[str] = "xcodec"
    classes: ClassVar[tuple[str, ...]] = (
        "XcodecResidualVectorQuantization",
        "HiggsAudioV2TokenizerResidualVectorQuantization",
    )

    @classmethod
    def stages(cls, original: Any) -> Sequence[Any]:
        return list(original.quantizers)

    def get_bandwidth_per_quantizer(self) -> float:
        """kbit/s of one codebook."""
        return math.log2(self.codebook_size) * self.frame_rate / 1000

    def _count(self, bandwidth: float) -> int:
        return math.floor(bandwidth / self.get_bandwidth_per_quantizer())
