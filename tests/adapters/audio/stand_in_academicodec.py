"""The quantizer of AcademiCodec and its SoundStream, written from the contract: EnCodec's with a tuple."""

from typing import Any

from torch import Tensor, nn

from tests.adapters.audio import stand_in_encodec


class ResidualVectorQuantizer(stand_in_encodec.ResidualVectorQuantizer):
    def forward(  # type: ignore[override]
        self, x: Tensor, sample_rate: float, bandwidth: float | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Any]:
        result = super().forward(x, sample_rate, bandwidth)
        return result.quantized, result.codes, result.bandwidth, result.penalty

    def encode(
        self, x: Tensor, sample_rate: float, bandwidth: float | None = None, st: int | None = None
    ) -> Tensor:
        assert not st
        return super().encode(x, sample_rate, bandwidth)


class SoundStream(nn.Module):
    """Audio [B, 1, samples] → frames of 8 samples, codes at a bandwidth, and back."""

    def __init__(self, quantizer: nn.Module, width: int, frame_rate: float = 100) -> None:
        super().__init__()
        self.frame_rate, self.target_bandwidths = frame_rate, [1.0, 2.0]
        self.encoder = nn.Conv1d(1, width, 8, stride=8)
        self.quantizer = quantizer
        self.decoder = nn.ConvTranspose1d(width, 1, 8, stride=8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, None]:
        quantized, _, _, penalty = self.quantizer(self.encoder(x), self.frame_rate, self.target_bandwidths[-1])
        return self.decoder(quantized), penalty, None

    def encode(self, x: Tensor, target_bw: float | None = None, st: int | None = None) -> Tensor:
        bandwidth = self.target_bandwidths[-1] if target_bw is None else target_bw
        return self.quantizer.encode(self.encoder(x), self.frame_rate, bandwidth, st or 0)

    def decode(self, codes: Tensor) -> Tensor:
        return self.decoder(self.quantizer.decode(codes))
