"""What the contracts of residual codecs share: codes by stages, and codebooks that are moving averages."""

import abc
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from quantizers.adapters.bases.adapter import Adapter, set_averages
from quantizers.composite.residual import ResidualQuantizer
from quantizers.core.base import Quantizer
from quantizers.core.output import QuantizerOutput
from quantizers.core.projection import Projection


class StagesAdapter(Adapter):
    """z [B, D, T] → codes [N, B, T] of N stages, of which a caller may ask for the first n, and back.

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
        """The codes of one of them, [K, code_dim]."""

    @classmethod
    @abc.abstractmethod
    def averages(cls, stage: Any) -> tuple[Tensor, Tensor]:
        """The averages that they are made of: N [K] and m [K, code_dim], as of EMAVectorQuantizer."""

    @classmethod
    def trained_codebook(cls, original: Any) -> Tensor:
        return torch.stack([cls.codes(stage) for stage in cls.stages(original)])

    @classmethod
    @torch.no_grad()
    def keep(cls, original: Any, quantizer: Quantizer) -> None:
        """Codes, projections of the stages, and averages, from which EMA codes then go on; where no vector was
        seen yet, each code counts as one."""
        super().keep(original, quantizer)
        for part, stage in zip(quantizer.stages, cls.stages(original), strict=True):
            for name, projection in _projections(stage):
                setattr(part, name, Projection.of(projection))
            set_averages(part, *cls.averages(stage))

    @classmethod
    def keep_structure(cls, original: Any, quantizer: Quantizer) -> None:
        """The projections of the stages, also of those that do not change the number of channels."""
        for part, stage in zip(quantizer.stages, cls.stages(original), strict=True):
            for name, projection in _projections(stage):
                if isinstance(part.get_submodule(name), nn.Identity):
                    setattr(part, name, _like(projection))

    @property
    def codebook_size(self) -> int:
        """K of ours, which may be another than the original's, as with FSQ."""
        return self.quantizer.codebook_size

    @property
    def num_quantizers(self) -> int:
        """N, how many codebooks there are."""
        return self.quantizer.num_codebooks

    def _encode(self, z: Tensor, count: int | None) -> Tensor:
        """Codes [n, B, T]: the indices of evaluation, in either mode."""
        return self.quantizer.encode(z, **self._first(count)).movedim(-1, 0)

    def _decode(self, codes: Tensor) -> Tensor:
        """[B, D, T] of codes [n, B, T], n ≤ N, in the model's dtype."""
        return self._decoded(codes.movedim(0, -1))

    def _quantize(self, z: Tensor, count: int | None) -> QuantizerOutput:
        """A forward of ours with the first codebooks; loss [n], that of each stage, where there are stages."""
        return quantize_by_stage(self.quantizer, z, **self._first(count))

    def _whole(self, count: int | None) -> int:
        """How many codebooks to use where `count` are asked for: in whole stages, at least one, at most all."""
        if count is None or not self.quantizer.truncatable:
            return self.num_quantizers if count is None else min(count, self.num_quantizers)
        ends = list(accumulate(stage.num_codebooks for stage in self.quantizer.stages))
        return max((end for end in ends if end <= count), default=ends[0])

    def _first(self, count: int | None) -> dict[str, Any]:
        """What asks our quantizer for that many codebooks, None for all.

        Raises: ValueError for a quantizer that has no stages to leave out.
        """
        used = self._whole(count)
        if used == self.num_quantizers:
            return {}
        if not self.quantizer.truncatable:
            raise ValueError(
                f"{used} codebooks are asked for, and {type(self.quantizer).__name__} always gives its "
                f"{self.num_quantizers}; expected a ResidualQuantizer, whose last stages can be left out"
            )
        return {"num_codebooks": used}


def quantize_by_stage(
    quantizer: Quantizer, x: Tensor, mask: Tensor | None = None, **options: Any
) -> QuantizerOutput:
    """A forward, with the loss of each stage, [n]; of a quantizer that has no stages, its loss as [1]."""
    if isinstance(quantizer, ResidualQuantizer):
        return quantizer.forward_stages(x, mask, **options)
    output: QuantizerOutput = quantizer(x, mask, **options)
    return output._replace(loss=output.loss[None])


def _projections(stage: Any) -> Iterator[tuple[str, nn.Linear]]:
    """Those of a stage of the original, with the names that they have in ours."""
    for name in ("project_in", "project_out"):
        projection = getattr(stage, name, None)
        if isinstance(projection, nn.Linear):
            yield name, projection


def _like(projection: nn.Linear) -> Projection:
    return Projection(projection.in_features, projection.out_features, projection.bias is not None)
