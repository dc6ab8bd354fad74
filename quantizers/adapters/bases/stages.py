"""A base for the contracts of residual codecs: codes by stage, and codebooks that are moving averages."""

import abc
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from quantizers.adapters.bases.adapter import Adapter
from quantizers.adapters.bases.copying import set_averages
from quantizers.composite.residual import ResidualQuantizer
from quantizers.core.base import Quantizer
from quantizers.core.output import QuantizerOutput
from quantizers.core.projection import Projection
from quantizers.core.truncatable import TruncatableQuantizer


class StagesAdapter(Adapter):
    """z [B, D, T] → codes [N, B, T] of N stages, or of the first n if the caller asks for n; and back.

    A subclass says which modules of the original are its stages, and where their codes and averages are.
    """

    channel_dim: ClassVar[int] = 1
    has_stages: ClassVar[bool] = True

    @classmethod
    def stages(cls, original: Any) -> Sequence[Any]:
        """The original's stages, in order."""
        return list(original.layers)

    @classmethod
    @abc.abstractmethod
    def codes(cls, stage: Any) -> Tensor:
        """The codes of one of the original's stages, [K, code_dim]."""

    @classmethod
    @abc.abstractmethod
    def averages(cls, stage: Any) -> tuple[Tensor, Tensor]:
        """The averages that these codes are computed from: N [K] and m [K, code_dim], see EMAVectorQuantizer."""

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        return torch.stack([cls.codes(stage) for stage in cls.stages(original)])

    @classmethod
    @torch.no_grad()
    def copy_codebook(cls, original: Any, quantizer: Quantizer) -> None:
        """Copy the codes, the stages' projections, and the averages, from which EMA codes then continue.

        If the original has seen no vector yet, each code counts as one vector.
        """
        super().copy_codebook(original, quantizer)
        for stage, other in zip(quantizer.stages, cls.stages(original), strict=True):
            for name, projection in _projections(other):
                setattr(stage, name, Projection.of(projection))
            set_averages(stage, *cls.averages(other))

    @classmethod
    def prepare_for_checkpoint(cls, original: Any, quantizer: Quantizer) -> None:
        """Add the projections of the stages, even those that do not change the number of channels."""
        for stage, other in zip(quantizer.stages, cls.stages(original), strict=True):
            for name, projection in _projections(other):
                if isinstance(stage.get_submodule(name), nn.Identity):
                    setattr(stage, name, _same_shape(projection))

    @property
    def codebook_size(self) -> int:
        """K of the new quantizer, which may differ from the original's, for example with FSQ."""
        return self.quantizer.codebook_size

    @property
    def num_quantizers(self) -> int:
        """N, the number of codebooks."""
        return self.quantizer.num_codebooks

    def _encode(self, z: Tensor, count: int | None) -> Tensor:
        """Codes [n, B, T]: the indices that evaluation gives, in either mode."""
        return self.quantizer.encode(z, **self._codebook_option(count)).movedim(-1, 0)

    def _decode(self, codes: Tensor) -> Tensor:
        """Vectors [B, D, T] of codes [n, B, T], n ≤ N, in the model's dtype."""
        return self._decode_indices(codes.movedim(0, -1))

    def _quantize(self, z: Tensor, count: int | None) -> QuantizerOutput:
        """A forward of the quantizer with the first `count` codebooks, and the loss of each stage, [n]."""
        return quantize_by_stage(self.quantizer, z, **self._codebook_option(count))

    def _whole_stages(self, count: int | None) -> int:
        """The number of codebooks to use if `count` are requested: whole stages, at least one, at most all."""
        if count is None or not isinstance(self.quantizer, TruncatableQuantizer):
            return self.num_quantizers if count is None else min(count, self.num_quantizers)
        first, *more = self.quantizer.codebook_counts
        return [first, *(end for end in more if end <= count)][-1]

    def _codebook_option(self, count: int | None) -> dict[str, Any]:
        """The option of the quantizer that makes it use `count` codebooks; None stands for all.

        Raises: ValueError for a quantizer that cannot leave codebooks out.
        """
        used = self._whole_stages(count)
        if used == self.num_quantizers:
            return {}
        if not self.quantizer.truncatable:
            raise ValueError(
                f"{used} codebooks are requested, but {type(self.quantizer).__name__} always uses its "
                f"{self.num_quantizers}; expected a quantizer whose last codebooks can be left out, such as "
                "ResidualQuantizer"
            )
        return {"num_codebooks": used}


def quantize_by_stage(
    quantizer: Quantizer, x: Tensor, mask: Tensor | None = None, **options: Any
) -> QuantizerOutput:
    """A forward with the loss of each stage, [n]; the loss is [1] for a quantizer that is not residual (QINCo)."""
    if isinstance(quantizer, ResidualQuantizer):
        return quantizer.forward_stages(x, mask, **options)
    output: QuantizerOutput = quantizer(x, mask, **options)
    return QuantizerOutput(output.quantized, output.indices, output.loss[None])


def _projections(stage: Any) -> Iterator[tuple[str, nn.Linear]]:
    """The linear projections of a stage of the original, with their names, which a Quantizer uses too."""
    for name in ("project_in", "project_out"):
        projection = getattr(stage, name, None)
        if isinstance(projection, nn.Linear):
            yield name, projection


def _same_shape(projection: nn.Linear) -> Projection:
    return Projection(projection.in_features, projection.out_features, projection.bias is not None)
