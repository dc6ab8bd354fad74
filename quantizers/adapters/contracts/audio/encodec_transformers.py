"""EnCodec's residual quantizer in transformers, and those of X-Codec and Higgs Audio, which derive from it."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.bases.stages import StagesAdapter
from quantizers.core.output import QuantizerOutput


class TransformersEncodecAdapter(StagesAdapter):
    """Replaces EncodecResidualVectorQuantizer of transformers (tested with 5.23).

    encode(x [B, D, T], bandwidth=None) → codes [n, B, T]; decode(codes) → [B, D, T].

    A bandwidth in kbit/s allows for n = ⌊1000 · bandwidth / (log2 K · frame_rate)⌋ codebooks, at least one, where
    K is the new quantizer's codebook size. Here n is at most N, the number of codebooks; the original counts on
    beyond N. `encode` returns the indices of evaluation and changes no state, in either mode.

    These models pass codes from their encoder to their decoder, without a gradient or a loss: their own forward
    does not train the encoder. The original has no forward; this one returns the quantizer's output, for a
    training loop:

        quantized, codes, loss = model.quantizer(model.encoder(audio), bandwidth=6.0)
        audio_values = model.decoder(quantized)

    Source: Défossez et al.: High Fidelity Neural Audio Compression, 2022 (arXiv 2210.13438);
    `models/encodec/modeling_encodec.py` in transformers.
    """

    contract: ClassVar[str] = "encodec_transformers"
    classes: ClassVar[tuple[str, ...]] = ("EncodecResidualVectorQuantizer",)

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        stages = cls.stages(original)
        first, (size, code_dim) = stages[0], cls.codes(stages[0]).shape
        project_in = getattr(first, "project_in", None)
        dim = project_in.in_features if isinstance(project_in, nn.Linear) else code_dim
        return QuantizerSpec(
            dim, size, cls.channel_dim, len(stages), {} if dim == code_dim else {"code_dim": code_dim}
        )

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        codes = module.encode(z)
        yield "encode", codes
        yield "decode", module.decode(codes)

    @classmethod
    def codes(cls, stage: Any) -> Tensor:
        codes: Tensor = stage.codebook.embed
        return codes

    @classmethod
    def averages(cls, stage: Any) -> tuple[Tensor, Tensor]:
        return stage.codebook.cluster_size, stage.codebook.embed_avg

    def forward(self, x: Tensor, mask: Tensor | None = None, *, bandwidth: float | None = None) -> QuantizerOutput:
        """The quantizer's output for x [B, D, T]: quantized [B, D, T], indices [B, T, n], loss []. mask: bool [B,
        T]."""
        count = self.get_num_quantizers_for_bandwidth(bandwidth)
        return self.quantizer(x, mask, **self._codebook_option(count))  # type: ignore[no-any-return]

    def encode(self, embeddings: Tensor, bandwidth: float | None = None) -> Tensor:
        """See the class."""
        return self._encode(embeddings, self.get_num_quantizers_for_bandwidth(bandwidth))

    def decode(self, codes: Tensor) -> Tensor:
        """See the class."""
        return self._decode(codes)

    @property
    def frame_rate(self) -> float:
        """The model's frame rate, in vectors per second."""
        rate: float = self.original.frame_rate
        return rate

    def get_num_quantizers_for_bandwidth(self, bandwidth: float | None = None) -> int:
        """n, see the class; all codebooks for bandwidth None and 0."""
        if not bandwidth or bandwidth < 0:
            return self.num_quantizers
        return self._whole_stages(max(1, self._count(bandwidth)))

    def _count(self, bandwidth: float) -> int:
        return math.floor(bandwidth * 1000 / (math.log2(self.codebook_size) * self.frame_rate))


class XcodecAdapter(TransformersEncodecAdapter):
    """Replaces XcodecResidualVectorQuantization of transformers (tested with 5.23), and
    HiggsAudioV2TokenizerResidualVectorQuantization (tested with a stand-in).

    The contract is "encodec_transformers" with n = ⌊bandwidth / (log2 K · frame_rate / 1000)⌋, which rounds
    differently. The forward of these models passes codes, too.

    Source: `models/xcodec/modeling_xcodec.py` and `models/higgs_audio_v2_tokenizer` in transformers.
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
        """The bandwidth of one codebook in kbit/s."""
        return math.log2(self.codebook_size) * self.frame_rate / 1000

    def _count(self, bandwidth: float) -> int:
        return math.floor(bandwidth / self.get_bandwidth_per_quantizer())
