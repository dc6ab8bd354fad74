"""WavTokenizer's quantizer, which has a single codebook."""

import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor

from quantizers.adapters.bases.adapter import Adapter
from quantizers.adapters.bases.codebook_view import CodebookView
from quantizers.adapters.bases.copying import set_averages, set_codebook
from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.contracts.audio.encodec import FRAME_RATE, EncodecStagesAdapter, QuantizedResult
from quantizers.core.base import Quantizer


class WavTokenizerAdapter(Adapter):
    """Replaces ResidualVectorQuantizer of github.com/jishengpeng/WavTokenizer (no release; tested with a
    stand-in).

    (x [B, D, T], frame_rate, bandwidth=None) → QuantizedResult(quantized [B, D, T], codes [1, B, T], bandwidth,
    penalty), from a call and from `infer` alike. A new quantizer of several codebooks gives codes [n, B, T], n of
    them whatever the bandwidth is; the bandwidth in the result is that of the returned codes, in bit/s.

    The penalty is the loss of the new quantizer, already weighted, in training and in evaluation. **WavTokenizer's
    own training multiplies the penalty by 1000**, which it takes for a small commitment. Plug in a quantizer whose
    codes do not learn by its loss ("ema_vq"), or divide its weights: `commitment_weight`, `codebook_weight`.

    Not supported: an original of several codebooks, which its forward does not add up, and moving dead codes
    within forward; use `quantizers.DeadCodeReplacement`, which moves them between steps.

    Source: Ji et al.: WavTokenizer: an Efficient Acoustic Discrete Codec Tokenizer for Audio Language Modeling,
    2024 (arXiv 2408.16532); `encoder/quantization/vq.py`.
    """

    contract: ClassVar[str] = "wavtokenizer"
    classes: ClassVar[tuple[str, ...]] = ("ResidualVectorQuantizer",)
    channel_dim: ClassVar[int] = 1

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        out = module(z, FRAME_RATE, bandwidth=6.6)
        yield "forward", out
        yield "infer", module.infer(z, FRAME_RATE, bandwidth=6.6)
        yield "encode", module.encode(z, FRAME_RATE)
        yield "decode", module.decode(out.codes[:1])
        yield "vq.layers", [layer.codebook for layer in module.vq.layers]

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        _ = original.infer
        spec = EncodecStagesAdapter.read_stages(original.vq.layers)
        if spec.num_quantizers != 1:
            raise ValueError(
                f"{type(original).__name__} has {spec.num_quantizers} codebooks, which its forward does not add "
                "up; expected one"
            )
        return spec._replace(num_quantizers=None)

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        return EncodecStagesAdapter.codes(original.vq.layers[0])

    @classmethod
    @torch.no_grad()
    def copy_codebook(cls, original: Any, quantizer: Quantizer) -> None:
        """Copy the codes, and the averages, from which EMA codes then continue."""
        set_codebook(quantizer, cls.trained_codebook(original))
        set_averages(quantizer, *EncodecStagesAdapter.averages(original.vq.layers[0]))

    def forward(self, x: Tensor, frame_rate: float, bandwidth: float | None = None) -> QuantizedResult:
        """See the class. frame_rate: in vectors per second. bandwidth: has no effect, there is one codebook."""
        quantized, indices, loss = self.quantizer(x)
        used = torch.tensor(self.n_q * self.get_bandwidth_per_quantizer(frame_rate)).to(x)
        return QuantizedResult(quantized, self._codebooks_first(indices), used, loss)

    def infer(self, x: Tensor, frame_rate: float, bandwidth: float | None = None) -> QuantizedResult:
        """The same as a call of the module."""
        result: QuantizedResult = self(x, frame_rate, bandwidth)
        return result

    def encode(self, x: Tensor, frame_rate: float, bandwidth: float | None = None) -> Tensor:
        """Codes [1, B, T] of x [B, D, T]."""
        return self._codebooks_first(self.quantizer.encode(x))

    def decode(self, codes: Tensor) -> Tensor:
        """Vectors [B, D, T] of codes [1, B, T]."""
        return self._decode_indices(codes.movedim(0, -1) if self.quantizer.composed else codes.squeeze(0))

    def get_num_quantizers_for_bandwidth(self, frame_rate: float, bandwidth: float | None = None) -> int:
        """The number of codebooks, which is the same for every bandwidth."""
        return self.n_q

    def get_bandwidth_per_quantizer(self, frame_rate: float) -> float:
        """The bandwidth of one codebook in bit/s, at `frame_rate` vectors per second."""
        return math.log2(self.bins) * frame_rate

    @property
    def vq(self) -> SimpleNamespace:
        """`vq.layers[0].codebook` is the table of vectors [K, D] that the model looks codes up in.

        Raises: ValueError for a quantizer of several codebooks that are not stages.
        """
        stages = self.quantizer.stages if self.quantizer.composed else [self.quantizer]
        return SimpleNamespace(
            layers=[SimpleNamespace(codebook=CodebookView(stage, self.dtype).weight) for stage in stages]
        )

    @property
    def n_q(self) -> int:
        """The number of codebooks."""
        return self.quantizer.num_codebooks

    @property
    def bins(self) -> int:
        """K, the new quantizer's codebook size."""
        return self.quantizer.codebook_size

    @property
    def dimension(self) -> int:
        """D."""
        return self.quantizer.dim

    def _codebooks_first(self, indices: Tensor) -> Tensor:
        return indices.movedim(-1, 0) if self.quantizer.composed else indices[None]
