"""Product quantization: groups of channels with a code each."""

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
from quantizers.kernels.common.vectors import are_finite


class GroupedQuantizer(ComposedQuantizer, RowQuantizer):
    """Product quantization: split the channels into groups, and quantize each with a quantizer of its own.

    G groups with K codes each represent K^G values at the cost of G searches over K codes.

        z = [z_1 … z_G] by channels, value [Q_1(z_1) … Q_G(z_G)]
        loss = Σ_g (channels of group g / all channels) · loss_g

    So with VQ in each group the loss is that of VQ on the whole vector, for any number of groups. If the same
    quantizer is at every position (a shared codebook), all groups are quantized in one call, as rows of one batch.

    Example:
        >>> import torch
        >>> from quantizers import FSQ, GroupedQuantizer
        >>> quantizer = GroupedQuantizer(4, [FSQ(2, [3, 3]), FSQ(2, [5, 5])])
        >>> quantized, indices, loss = quantizer(torch.tensor([[9.0, 0.0, -9.0, 9.0]]))
        >>> quantized, indices
        (tensor([[ 1.,  0., -1.,  1.]]), tensor([[ 5, 20]]))

    Args:
        dim: channels of x; where it differs from the sum of the groups' channels, x is projected.
        groups: at least one quantizer, each for the next `group.dim` channels. The same object several times is a
            shared codebook.
        channel_dim: axis of x's channels.

    Shapes: x [..., dim] → quantized [..., dim], indices [..., num_codebooks], loss [].

    Raises: ValueError if `groups` is empty.

    Source: Jégou, Douze, Schmid: Product Quantization for Nearest Neighbor Search, 2011; in codecs, HiFi-Codec
        (Yang et al. 2023, arXiv 2305.02765).
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
                group.nested_quantize(rows._replace(vectors=vectors))
                for group, vectors in zip(self.components, self._split(rows.vectors), strict=True)
            ]
            codes = torch.cat([output.quantized for output in outputs], -1)
            indices = joined([output.indices for output in outputs])
            shares = [group.dim / self.code_dim for group in self.components]
            loss = torch.stack([s * o.loss.sum() for s, o in zip(shares, outputs, strict=True)])
        valid = are_finite(codes)
        return QuantizerOutput(codes.where(valid[:, None], 0.0), self._mark_missing(indices, valid), loss)

    def _encode(self, z: Tensor) -> Tensor:
        rows = all_valid(z)
        if self._is_shared:
            indices = self._unfolded(self.components[0].nested_encode(self._folded(rows)))
            return self._mark_missing(indices, (indices >= 0).all(-1))
        pairs = zip(self.components, self._split(z), strict=True)
        indices = joined([group.nested_encode(rows._replace(vectors=vectors)) for group, vectors in pairs])
        return self._mark_missing(indices, (indices >= 0).all(-1))

    def _decode(self, indices: Tensor) -> Tensor:
        if self._is_shared:
            group = self.components[0]
            folded = indices.reshape(-1, group.num_codebooks) if group.composed else indices.reshape(-1)
            return group.nested_decode(folded).reshape(len(indices), self.code_dim)
        pairs = zip(self.components, self._columns(indices), strict=True)
        return torch.cat([group.nested_decode(column) for group, column in pairs], -1)

    def _component_inputs(self, projected: Rows, indices: Tensor) -> list[tuple[RowQuantizer, Tensor, Tensor]]:
        return list(zip(self.components, self._split(projected.vectors), self._columns(indices), strict=True))

    def _initialize(self, z: Tensor, process_group: ProcessGroup) -> None:
        """Initialize each group's quantizer from the channels of all its positions; no group waits for another."""
        pairs = list(zip(self.components, self._split(z), strict=True))
        for group in dict.fromkeys(self.components):
            vectors = torch.cat([vectors for item, vectors in pairs if item is group])
            group.initialize_rows(all_valid(vectors), process_group)

    def _split(self, z: Tensor) -> Sequence[Tensor]:
        return torch.split(z, [group.dim for group in self.components], -1)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, num_groups={len(self.order)}, shared={self._is_shared}"

    def _folded(self, rows: Rows) -> Rows:
        """Reshape the groups of each row into rows, [N · G, group.dim]."""
        groups = len(self.order)
        vectors = rows.vectors.reshape(-1, self.components[0].dim)
        valid = rows.valid[:, None].expand(-1, groups).reshape(-1)
        return Rows(vectors, valid, torch.Size((*rows.shape, groups)))

    def _unfolded(self, indices: Tensor) -> Tensor:
        return indices.reshape(-1, self.num_codebooks)


register("grouped", GroupedQuantizer.from_options)
