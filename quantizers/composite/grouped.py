"""Product quantization: the channels in groups, each with its own code."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from quantizers.composite.composed import ComposedQuantizer, all_valid, check_component, joined
from quantizers.composite.repetition import STAGE_OPTIONS, repeated
from quantizers.core.arguments.checks import Size
from quantizers.core.arguments.forwarding import forwarding, forwards
from quantizers.core.arguments.options import checked
from quantizers.core.base import Quantizer
from quantizers.core.layout import Rows
from quantizers.core.output import QuantizerOutput
from quantizers.core.parallel import ProcessGroup
from quantizers.core.registry import Builder, create, register
from quantizers.core.row_quantizer import RowQuantizer
from quantizers.kernels.vectors import are_finite


class GroupedQuantizer(ComposedQuantizer, RowQuantizer):
    """z = [z_1 … z_G] by channels, value [Q_1(z_1) … Q_G(z_G)].

    Jégou et al.: Product Quantization for Nearest Neighbor Search, 2011; in codecs, HiFi-Codec (Yang et al.
    2023, arXiv 2305.02765). The loss is the mean of the groups' losses, weighted by their channels: with VQ in
    each group that of VQ on the whole vector, at any number of groups.

    With the same quantizer in every place (a shared codebook) all groups are quantized in one call, as rows of
    one batch.

    Args:
        dim: channels of x; where it differs from the sum of the groups', x is projected.
        groups: at least one quantizer, each for the next `group.dim` channels. The same object several times is a
            shared codebook.
        channel_dim: axis of x's channels.

    Shapes: x [..., dim] → quantized [..., dim], indices [..., num_codebooks], loss [].

    Raises: ValueError for no group.
    """

    @checked
    def __init__(self, dim: Size, groups: Sequence[Quantizer], *, channel_dim: int = -1) -> None:
        if not groups:
            raise ValueError("groups is empty, expected at least one quantizer")
        super().__init__(
            dim, groups, code_dim=sum(check_component(group).dim for group in groups), channel_dim=channel_dim
        )

    @classmethod
    @forwards(others=f"each group; {STAGE_OPTIONS}")
    @checked
    def from_options(
        cls,
        dim: Size,
        *,
        quantizer: str | Builder = "vq",
        num_groups: Size = 2,
        shared: bool = False,
        channel_dim: int = -1,
        **options: Any,
    ) -> Self:
        """Build `num_groups` quantizers of one kind, each for an equal share of the channels.

        Args:
            quantizer: the name, class or function of each group's quantizer, as for `create`.
            num_groups: how many groups; it divides `dim`.
            shared: one quantizer for all groups.
            options: all go to each group.

        Raises: ValueError if `num_groups` does not divide `dim`.
        """
        if dim % num_groups:
            raise ValueError(f"dim is {dim}, expected a multiple of num_groups, {num_groups}")
        with forwarding(cls.from_options):
            groups = repeated(lambda: create(quantizer, dim // num_groups, **options), num_groups, shared)
        return cls(dim, groups, channel_dim=channel_dim)

    @property
    def groups(self) -> Sequence[Quantizer]:
        """The quantizer of each group of channels, in order."""
        return self.components

    @property
    def _is_shared(self) -> bool:
        return len(self.quantizers) == 1

    def _quantize(self, rows: Rows) -> QuantizerOutput:
        if self._is_shared:
            codes, indices, loss = self.components[0].nested_quantize(self._folded(rows))
            codes, indices = codes.reshape(rows.vectors.shape), self._unfolded(indices)
        else:
            outputs = [
                part.nested_quantize(rows._replace(vectors=vectors))
                for part, vectors in zip(self.components, self._split(rows.vectors), strict=True)
            ]
            codes = torch.cat([output.quantized for output in outputs], -1)
            indices = joined([output.indices for output in outputs])
            shares = [part.dim / self.code_dim for part in self.components]
            loss = torch.stack([s * o.loss.sum() for s, o in zip(shares, outputs, strict=True)])
        whole = are_finite(codes)
        return QuantizerOutput(codes.where(whole[:, None], 0.0), self._mark_missing(indices, whole), loss)

    def _encode(self, z: Tensor) -> Tensor:
        rows = all_valid(z)
        if self._is_shared:
            indices = self._unfolded(self.components[0].nested_encode(self._folded(rows)))
            return self._mark_missing(indices, (indices >= 0).all(-1))
        pairs = zip(self.components, self._split(z), strict=True)
        indices = joined([part.nested_encode(rows._replace(vectors=vectors)) for part, vectors in pairs])
        return self._mark_missing(indices, (indices >= 0).all(-1))

    def _decode(self, indices: Tensor) -> Tensor:
        if self._is_shared:
            part = self.components[0]
            folded = indices.reshape(-1, part.num_codebooks) if part.composed else indices.reshape(-1)
            return part.nested_decode(folded).reshape(len(indices), self.code_dim)
        pairs = zip(self.components, self._columns(indices), strict=True)
        return torch.cat([part.nested_decode(column) for part, column in pairs], -1)

    def _component_inputs(self, projected: Rows, indices: Tensor) -> list[tuple[RowQuantizer, Tensor, Tensor]]:
        return list(zip(self.components, self._split(projected.vectors), self._columns(indices), strict=True))

    def _initialize(self, z: Tensor, process_group: ProcessGroup) -> None:
        """Each part after the channels of all its places, which wait for no other part's codes."""
        pairs = list(zip(self.components, self._split(z), strict=True))
        for part in dict.fromkeys(self.components):
            vectors = torch.cat([vectors for of, vectors in pairs if of is part])
            part.initialize_rows(all_valid(vectors), process_group)

    def _split(self, z: Tensor) -> Sequence[Tensor]:
        return torch.split(z, [part.dim for part in self.components], -1)

    def _folded(self, rows: Rows) -> Rows:
        """The groups of each row as rows of their own, [N · G, group.dim]."""
        groups = len(self.order)
        valid, unmasked = (flag[:, None].expand(-1, groups).reshape(-1) for flag in (rows.valid, rows.unmasked))
        return Rows(
            rows.vectors.reshape(-1, self.components[0].dim), valid, unmasked, torch.Size((*rows.shape, groups))
        )

    def _unfolded(self, indices: Tensor) -> Tensor:
        return indices.reshape(-1, self.num_codebooks)


register("grouped", GroupedQuantizer.from_options)
