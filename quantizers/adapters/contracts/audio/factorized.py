"""FactorizedVectorQuantize of FAcodec, the codec of NaturalSpeech 3."""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from quantizers.adapters.bases.copying import set_codebook
from quantizers.adapters.bases.distances import check_distance
from quantizers.adapters.bases.linear_maps import copy_maps
from quantizers.adapters.bases.spec import QuantizerSpec
from quantizers.adapters.contracts.audio.dac_stage import DacStageAdapter
from quantizers.core.base import Quantizer


class FactorizedAdapter(DacStageAdapter):
    """Replaces FactorizedVectorQuantize of github.com/Plachtaa/FAcodec and of Amphion's NaturalSpeech 3 codec,
    `quantize/fvq.py` (no release; tested with a stand-in).

    z [B, D, T] → (z_q [B, D, T], indices [B, T], loss [B]). The loss is that of the new quantizer, the same for
    each sample; the original's is zero in evaluation. With several codebooks indices have one more axis, the last.

    These classes are the layers of a ResidualVQ of the same repositories. Replace each of them by its path:
    `plug_in(model, "simvq", at=["quantizer.0.layers.0", "quantizer.0.layers.1"])`.

    With `keep_codebook` codes are compared by angle, as in the original, and the projections are copied.

    Source: Ju et al.: NaturalSpeech 3, 2024 (arXiv 2403.03100); `quantize/fvq.py`.
    """

    contract: ClassVar[str] = "factorized"
    classes: ClassVar[tuple[str, ...]] = ("FactorizedVectorQuantize",)

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        _check_order(original, channels_last=False)
        return cls._read_factorized(original)

    @classmethod
    def _read_factorized(cls, original: Any) -> QuantizerSpec:
        project_in, _ = cls._projections(original)
        size, width = original.codebook.weight.shape
        keep_options = {
            "distance": cls._distance(original),
            "commitment_weight": original.commitment,
            "codebook_weight": getattr(original, "codebook_loss_weight", 1.0),
        }
        dim = width if isinstance(project_in, nn.Identity) else _channels(project_in)
        return QuantizerSpec(
            dim, size, cls.channel_dim, options={"code_dim": width}, keep_codebook_options=keep_options
        )

    @classmethod
    def _projections(cls, original: Any) -> tuple[nn.Module, nn.Module]:
        """The maps to and from code space; identities if codes have the channels of z."""
        return original.in_proj, original.out_proj

    @classmethod
    def _distance(cls, original: Any) -> str:
        """How the original chooses codes, a value of the option `distance`."""
        return "angle"

    @classmethod
    @torch.no_grad()
    def copy_codebook(cls, original: Any, quantizer: Quantizer) -> None:
        """Copy codes and projections. Raises: ValueError for a quantizer that chooses codes in another way."""
        check_distance(quantizer, cls._distance(original))
        set_codebook(quantizer, cls.trained_codebook(original))
        copy_maps(quantizer, *cls._projections(original))

    @classmethod
    def calls(cls, module: Any, z: Tensor) -> Iterator[tuple[str, Any]]:
        """The calls of ResidualVQ."""
        output = module(z)
        yield "forward", output
        yield "vq2emb", module.vq2emb(output[1])
        yield "vq2emb(proj=False)", module.vq2emb(output[1], proj=False)
        yield "get_emb", module.get_emb()

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        """See the class. Raises: ValueError or TypeError for z of another shape or dtype."""
        quantized, indices, loss = self.quantizer(z)
        return quantized, indices, loss.expand(z.shape[:1])

    def vq2emb(self, vq: Tensor, proj: bool = True) -> Tensor:
        """The vectors [B, D, T] of indices [B, T]; with proj=False their codes [B, d, T]."""
        return self._decode_indices(vq) if proj else self.decode_code(vq)

    def get_emb(self) -> Tensor:
        """All codes, [K, d]."""
        return self.codebook.weight


class BigCodecAdapter(FactorizedAdapter):
    """Replaces FactorizedVectorQuantize of github.com/Aria-K-Alethia/BigCodec (no release; tested with a
    stand-in).

    The contract is "factorized", but `vq2emb` gives vectors [B, T, D].

    Source: Xin et al.: BigCodec: Pushing the Limits of Low-Bitrate Neural Speech Codec, 2024 (arXiv 2409.05377);
    `vq/factorized_vector_quantize.py`.
    """

    contract: ClassVar[str] = "factorized_bigcodec"
    classes: ClassVar[tuple[str, ...]] = ("FactorizedVectorQuantize",)

    @classmethod
    def read_spec(cls, original: Any) -> QuantizerSpec:
        _check_order(original, channels_last=True)
        return cls._read_factorized(original)

    def vq2emb(self, vq: Tensor, proj: bool = True) -> Tensor:
        """The vectors [B, T, D] of indices [B, T]; with proj=False their codes [B, T, d]."""
        return super().vq2emb(vq, proj).mT


def _channels(layer: Any) -> int:
    channels: int = layer.in_features if hasattr(layer, "in_features") else layer.in_channels
    return channels


@torch.no_grad()
def _check_order(original: Any, *, channels_last: bool) -> None:
    """Check the axis on which `vq2emb` gives channels, in which two copies of the class differ.

    Raises: TypeError for the other copy; AttributeError for another class.
    """
    codes: Tensor = original._codebook.weight
    indices = torch.zeros(1, codes.shape[1] + 1, dtype=torch.int64, device=codes.device)
    if (original.vq2emb(indices, proj=False).shape[-1] == codes.shape[1]) != channels_last:
        raise TypeError(f"its vq2emb gives channels on axis {1 if channels_last else 2}")
