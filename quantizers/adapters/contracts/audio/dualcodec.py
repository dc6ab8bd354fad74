"""DualCodec's two residual quantizers, of speech features and of audio."""

from collections.abc import Iterator
from typing import Any, ClassVar

from torch import Tensor, nn

from quantizers.adapters.contracts.audio.dac import DacAdapter
from quantizers.core.base import Quantizer


class DualCodecAdapter(DacAdapter):
    """Replaces ResidualVectorQuantize of the package dualcodec (0.4.2; tested with a stand-in).

    z [B, D, T] → (z_q [B, D, T], codes [B, N, T], latents [B, N·d, T], commitment [], codebook loss [], value of
    the first stage [B, D, T]). The first five are those of "dac", and so is all else. The value of the first stage
    has the gradient of this forward; a model with `distill=True` compares it with features of speech.

    A DualCodec has two such quantizers: `plug_in(model, "simvq", at=["semantic_vq", "dac.quantizer"])`.

    Not supported: `possibly_no_quantizer` in training with dropout (DualCodec's own training leaves it out),
    quantizers that are not residual (QINCo), and stages that differ in their sizes.

    Source: Li et al.: DualCodec: A Low-Frame-Rate, Semantically-Enhanced Neural Audio Codec for Speech Generation,
    2025 (arXiv 2505.13000); `dualcodec/model_codec/dac_quantize.py`.

    Raises: ValueError for a quantizer that is not residual.
    """

    contract: ClassVar[str] = "dualcodec"
    returns_first_value: ClassVar[bool] = True

    def __init__(self, quantizer: Quantizer, original: nn.Module) -> None:
        super().__init__(quantizer, original)
        self._residual()

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        out = module(z)
        yield "forward", out
        yield "forward with n_quantizers", module(z, 1, possibly_no_quantizer=False)
        yield "from_codes", module.from_codes(out[1])
        yield "from_latents", module.from_latents(out[2])

    def forward(  # type: ignore[override]
        self, z: Tensor, n_quantizers: int | None = None, possibly_no_quantizer: bool = False
    ) -> tuple[Tensor, ...]:
        """See the class.

        Args:
            n_quantizers: how many codebooks to use in evaluation, from the first. In training dropout decides.
            possibly_no_quantizer: whether dropout may leave out all stages of a sample.

        Raises: as DacAdapter; ValueError for a dropout that may leave out all stages.
        """
        if possibly_no_quantizer and self.training and self.quantizer_dropout:
            raise ValueError(
                "possibly_no_quantizer is True in training with quantizer_dropout="
                f"{self.quantizer_dropout:g}, which would leave out all stages of some samples; a quantizer of "
                "this library uses at least the first: expected False"
            )
        count = None if self.training else n_quantizers
        output, values = self._residual().forward_values(z, num_codebooks=count)
        return *self._encoded(output._replace(loss=output.loss.sum()), z), values[0]
