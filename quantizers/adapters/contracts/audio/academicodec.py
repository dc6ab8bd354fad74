"""The quantizer of AcademiCodec, which returns a tuple."""

from collections.abc import Iterator
from typing import Any, ClassVar

from torch import Tensor

from quantizers.adapters.bases.signatures import takes
from quantizers.adapters.contracts.audio.encodec import FRAME_RATE, EncodecAdapter, check_first_stage

Result = tuple[Tensor, Tensor, Tensor, Tensor | None]


class AcademiCodecAdapter(EncodecAdapter):
    """Replaces ResidualVectorQuantizer of github.com/yangdongchao/AcademiCodec (no release; tested with a
    stand-in).

    (x [B, D, T], frame_rate, bandwidth=None) → (quantized [B, D, T], codes [n, B, T], bandwidth, penalty): the
    contract is "encodec" with a tuple instead of a QuantizedResult.

    Not supported: `encode` from a later stage than the first.

    Source: Yang et al.: HiFi-Codec: Group-residual Vector quantization for High Fidelity Audio Codec, 2023 (arXiv
    2305.02765); `academicodec/quantization/vq.py`.
    """

    contract: ClassVar[str] = "academicodec"
    classes: ClassVar[tuple[str, ...]] = ("ResidualVectorQuantizer",)

    @classmethod
    def check_call(cls, original: Any) -> None:
        _ = original.get_num_quantizers_for_bandwidth
        if not takes(original, "encode", "st"):
            raise AttributeError(f"{type(original).__name__}.encode does not take st")

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        out = module(z, FRAME_RATE)
        yield "forward", out
        bandwidth = module.get_bandwidth_per_quantizer(FRAME_RATE)
        yield "forward with bandwidth", module(z, FRAME_RATE, bandwidth)
        yield "encode", module.encode(z, FRAME_RATE, None, 0)
        yield "decode", module.decode(out[1])

    def forward(  # type: ignore[override]
        self, x: Tensor, sample_rate: float, bandwidth: float | None = None
    ) -> Result:
        """See the class. sample_rate: the frame rate, in vectors per second."""
        result = super().forward(x, sample_rate, bandwidth)
        return result.quantized, result.codes, result.bandwidth, result.penalty

    def encode(
        self, x: Tensor, sample_rate: float, bandwidth: float | None = None, st: int | None = None
    ) -> Tensor:
        """Indices [n, B, T] of x [B, D, T]. Raises: ValueError for another first stage `st` than 0."""
        check_first_stage(st)
        return super().encode(x, sample_rate, bandwidth)
